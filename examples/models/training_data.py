"""Training data of the students: texts, the teacher's embeddings of them, and initial word vectors."""

from __future__ import annotations

import csv
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import docstrings

MAX_TOKENS = 96  # paragraphs have at most 60 words


class TrainingData(NamedTuple):
    """Texts, and the teacher's normalized sentence embeddings of shape (texts, 384)."""

    texts: list[str]
    embeddings: np.ndarray


def corpus() -> list[str]:
    """Return docstring paragraphs of all packages, without near-duplicates of the demo's validation and test rows."""
    data = docstrings.build().folder
    held_out = []
    for split in ("validation", "test"):
        with (data / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            held_out += [row["text"] for row in csv.DictReader(file)]
    texts = list(docstrings.all_paragraphs())
    dropped = set(docstrings.near_duplicates(texts, held_out))
    return [text for index, text in enumerate(texts) if index not in dropped]


def batches(lengths: list[int], size: int, rng: random.Random | None = None) -> list[list[int]]:
    """Return batches of indices of texts of similar length; with `rng`, different batches each time, shuffled."""
    key = (lambda i: lengths[i] + rng.uniform(-3, 3)) if rng else (lambda i: lengths[i])
    order = sorted(range(len(lengths)), key=key)
    found = [order[start : start + size] for start in range(0, len(order), size)]
    if rng:
        rng.shuffle(found)
    return found


def padded(ids: list[list[int]], pad: int) -> dict[str, torch.Tensor]:
    """Return input_ids and attention_mask of shape (batch, longest)."""
    longest = max(map(len, ids))
    tokens = torch.tensor([row + [pad] * (longest - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    return {"input_ids": tokens, "attention_mask": mask}


def mean_pooled(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean over the tokens that are not padding: (batch, tokens, width) to (batch, width)."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


@torch.inference_mode()
def embed(teacher: Path, texts: list[str], size: int = 64) -> np.ndarray:
    """Return the teacher's normalized sentence embeddings as float16, of shape (texts, 384)."""
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    model = AutoModel.from_pretrained(teacher, dtype=torch.float32).eval()
    ids = tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    found = np.zeros((len(texts), model.config.hidden_size), np.float16)
    with torch.autocast("cpu", torch.bfloat16):  # 2.6 times as fast as float32 on processors with bfloat16
        for batch in batches([len(row) for row in ids], size):
            inputs = padded([ids[i] for i in batch], tokenizer.pad_token_id)
            pooled = mean_pooled(model(**inputs).last_hidden_state.float(), inputs["attention_mask"])
            found[batch] = functional.normalize(pooled, dim=-1).numpy()
    return found


def prepare(teacher: Path, cache: Path) -> TrainingData:
    """Return the corpus and the teacher's embeddings of it, from the cache folder if it has them."""
    cache.mkdir(parents=True, exist_ok=True)
    key = docstrings.build().fingerprint[:12]  # the demo's data decides which texts are dropped
    text_file, embedding_file = cache / f"texts-{key}.json", cache / f"teacher-{key}.npy"
    if not text_file.exists():
        write_atomically(text_file, lambda path: path.write_text(json.dumps(corpus()), encoding="utf-8"))
    texts = json.loads(text_file.read_text(encoding="utf-8"))
    if not embedding_file.exists():
        write_atomically(embedding_file, lambda path: np.save(path, embed(teacher, texts)))
    return TrainingData(texts, np.load(embedding_file))


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a temporary file and rename it, so that readers see either the old file or the new one."""
    temporary = path.with_name("tmp-" + path.name)
    write(temporary)
    temporary.replace(path)


@torch.inference_mode()
def word_vectors(teacher: Path, tokenizer: PreTrainedTokenizerFast, width: int) -> torch.Tensor:
    """Return initial values for the student's embedding matrix, of shape (vocabulary, width).

    They are the teacher's sentence embeddings of each single token, reduced to their principal components (Model2Vec,
    2024).
    """
    vocabulary = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    teacher_tokenizer = AutoTokenizer.from_pretrained(teacher)
    known = teacher_tokenizer.get_vocab()
    start, end, pad = (getattr(teacher_tokenizer, f"{name}_token_id") for name in ("cls", "sep", "pad"))
    ids = []
    for token in vocabulary:
        if token in known:
            pieces = [known[token]]
        else:
            text = tokenizer.convert_tokens_to_string([token]).removeprefix("##")
            pieces = teacher_tokenizer(text, add_special_tokens=False)["input_ids"][:8]
        ids.append([start, *pieces, end])
    model = AutoModel.from_pretrained(teacher, dtype=torch.float32).eval()
    found = torch.zeros(len(ids), model.config.hidden_size)
    for batch in batches([len(row) for row in ids], 256):
        inputs = padded([ids[i] for i in batch], pad)
        found[batch] = mean_pooled(model(**inputs).last_hidden_state, inputs["attention_mask"])
    found -= found.mean(0)
    _, _, directions = torch.linalg.svd(found, full_matrices=False)
    reduced = found @ directions[:width].T
    return reduced / reduced.std() * 0.05
