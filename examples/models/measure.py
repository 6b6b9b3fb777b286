"""Compare the quickstart's models with the same architectures at random weights, and write their cards.

    python examples/models/measure.py

Each side uses the best of three learning rates (by validation accuracy) and reports the mean test accuracy of three
seeds on the demo's data. Finished runs are saved in a JSON file, from which an interrupted measurement resumes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import random
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from distill import HERE, POSITIONS, STUDENTS
from safetensors import safe_open
from torch.nn import functional
from training_data import batches, docstrings, padded, write_atomically
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

LEARNING_RATES = (5e-4, 1e-3, 2e-3)
SEEDS = (0, 1, 2)
EPOCHS = 4
BATCH_SIZE = 64
MAX_TOKENS = 96


class Split(NamedTuple):
    """One split of the data, tokenized."""

    ids: list[list[int]]
    labels: torch.Tensor


class Figures(NamedTuple):
    """The best learning rate of one side, and the mean test accuracy at it."""

    learning_rate: float
    accuracy: float


def load_splits(tokenizer: Any) -> dict[str, Split]:
    labels = sorted(docstrings.LIBRARIES)
    splits = {}
    for name in docstrings.ROWS_PER_LABEL:
        with (docstrings.build().folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        ids = tokenizer([row["text"] for row in rows], truncation=True, max_length=MAX_TOKENS)["input_ids"]
        splits[name] = Split(ids, torch.tensor([labels.index(row["label"]) for row in rows]))
    return splits


def new_classifier(folder: Path, pretrained: bool) -> Any:
    labels = {"num_labels": len(docstrings.LIBRARIES), "attn_implementation": "eager"}
    if pretrained:
        return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **labels)
    config = AutoConfig.from_pretrained(folder, dtype=torch.float32, **labels)
    return AutoModelForSequenceClassification.from_config(config)


def fine_tune(model: Any, splits: dict[str, Split], pad: int, learning_rate: float, seed: int) -> None:
    """Fine-tune all weights with AdamW, warm-up over a tenth of the steps and linear decay."""
    train, rng = splits["train"], random.Random(seed)
    lengths = [len(row) for row in train.ids]
    steps = EPOCHS * -(-len(lengths) // BATCH_SIZE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (0.1 * steps)) * (1 - step / steps)
    )
    model.train()
    for _ in range(EPOCHS):
        for batch in batches(lengths, BATCH_SIZE, rng):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(**padded([train.ids[i] for i in batch], pad)).logits
            optimizer.zero_grad()
            functional.cross_entropy(logits.float(), train.labels[batch]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()


@torch.inference_mode()
def accuracy(model: Any, split: Split, pad: int) -> float:
    model.eval()
    right = 0
    for batch in batches([len(row) for row in split.ids], 128):
        logits = model(**padded([split.ids[i] for i in batch], pad)).logits
        right += int((logits.argmax(-1) == split.labels[batch]).sum())
    return right / len(split.ids)


def fingerprint(folder: Path, pattern: str) -> str:
    """Return a shortened SHA-256 of a model's files that match the pattern, except for its card."""
    total = hashlib.sha256()
    for path in sorted(folder.glob(pattern)):
        if path.name != "README.md":
            total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()[:12]


def measure(name: str, pretrained: bool, results: Path) -> Figures:
    """Return the learning rate that is best on validation for the first seed, and the mean test accuracy at it."""
    side = "pre-trained" if pretrained else "random"
    tokenizer = AutoTokenizer.from_pretrained(HERE / name)
    splits = load_splits(tokenizer)
    files = fingerprint(HERE / name, "*" if pretrained else "*.json")  # results hold for these files only
    kept = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}

    def scores(learning_rate: float, seed: int) -> dict[str, float]:
        key = f"{name} {files} {side} {learning_rate:g} {seed}"
        if key not in kept:
            torch.manual_seed(seed)
            model = new_classifier(HERE / name, pretrained)
            fine_tune(model, splits, tokenizer.pad_token_id, learning_rate, seed)
            kept[key] = {
                split: accuracy(model, splits[split], tokenizer.pad_token_id) for split in ("validation", "test")
            }
            write_atomically(results, lambda path: path.write_text(json.dumps(kept, indent=1), encoding="utf-8"))
            print(key, kept[key], flush=True)
        return kept[key]

    best = max(LEARNING_RATES, key=lambda rate: scores(rate, SEEDS[0])["validation"])
    return Figures(best, mean(scores(best, seed)["test"] for seed in SEEDS))


CARD = """---
license: apache-2.0
language: en
library_name: transformers
base_model: sentence-transformers/all-MiniLM-L6-v2
tags: [distillation, demo]
---
# {name}

A very small English encoder for the quickstart and the tests of this project. Do not use it for real work.

- **Architecture**: {architecture}, {layers} layers, hidden size {width}; {parameters:.2f} million parameters,
  {megabytes:.1f} MB in half precision. {tokenizer} tokenizer with {vocabulary:,} entries, up to {positions} tokens.
  The file holds the encoder alone: a classification head starts from random weights.
- **Teacher**: [all-MiniLM-L6-v2](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2) (BERT, 6 layers,
  hidden size 384, 22.7 million parameters; Apache-2.0). This model is under Apache-2.0 as well.
- **Data**: about 114,000 English paragraphs (4.3 million of the teacher's tokens) from docstrings of Python's standard
  library and of installed packages, with names of code masked. The demo's validation and test rows, and their
  near-duplicates, were removed; its training rows are included, without their labels.
- **Training**: the embedding matrix starts as the principal components of the teacher's vectors of single tokens; then
  {epochs:g} passes over the data train the first token{pooler} and the mean of all tokens to predict the direction
  of the teacher's sentence embedding and the similarities between the texts of a batch. Created with
  `python examples/models/distill.py MINILM_FOLDER`, measured with `python examples/models/measure.py`.

## Figures

"Which library does this docstring paragraph come from?": 8 classes, {train:,} training and {test:,} test rows;
{epochs_measured} epochs, batch {batch_size}, each side at its best of {rates} learning rates by validation accuracy,
mean of {seeds} seeds.

| start | learning rate | test accuracy |
|---|---|---|
| this model | {tuned.learning_rate:g} | **{tuned.accuracy:.3f}** |
| the same architecture, random weights | {random.learning_rate:g} | {random.accuracy:.3f} |
| TF-IDF + logistic regression, for comparison | | {tfidf:.3f} |

## Use and limits

For demos and tests that need a small pre-trained model: fine-tune it with
`AutoModelForSequenceClassification.from_pretrained`. It was trained on little text, all of it technical English: it
knows little of other language, of long texts and of the world, and repeats the biases of its teacher and its texts.
"""


def write_card(name: str, random: Figures, tuned: Figures) -> None:
    """Write the model's README.md: architecture, training and the results just measured."""
    folder, student, data = HERE / name, STUDENTS[name], docstrings.build()
    config = AutoConfig.from_pretrained(folder)
    weights = folder / "model.safetensors"
    with safe_open(weights, framework="numpy") as tensors:
        parameters = sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
    card = CARD.format(
        name=name,
        architecture=config.architectures[0].removesuffix("Model"),
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        parameters=parameters / 1e6,
        megabytes=weights.stat().st_size / 1e6,
        tokenizer={"wordpiece": "WordPiece", "bpe": "Byte-level BPE"}[student.tokenizer],
        vocabulary=config.vocab_size,
        positions=POSITIONS,
        epochs=student.epochs,
        pooler=" (through the pooler)" if student.model_type == "bert" else "",
        train=data.rows["train"],
        test=data.rows["test"],
        epochs_measured=EPOCHS,
        batch_size=BATCH_SIZE,
        rates=len(LEARNING_RATES),
        seeds=len(SEEDS),
        tuned=tuned,
        random=random,
        tfidf=data.tfidf_test_accuracy,
    )
    write_atomically(folder / "README.md", lambda path: path.write_text(card, encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS))
    parser.add_argument("--sides", nargs="+", choices=("random", "pre-trained"), default=["random", "pre-trained"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path(tempfile.gettempdir(), "distill", "figures.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    for name in options.students:
        sides = {side: measure(name, side == "pre-trained", options.results) for side in options.sides}
        for side, found in sides.items():
            print(f"{name:18} {side:12} lr {found.learning_rate:g}  test accuracy {found.accuracy:.3f}", flush=True)
        if len(sides) == 2:
            write_card(name, sides["random"], sides["pre-trained"])


if __name__ == "__main__":
    main()
