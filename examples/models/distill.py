"""Distill the quickstart's four small pre-trained encoders from all-MiniLM-L6-v2.

    python examples/models/distill.py MINILM_FOLDER

MINILM_FOLDER is the teacher in Hugging Face's format (sentence-transformers/all-MiniLM-L6-v2, Apache-2.0). The texts
are docstring paragraphs of the standard library and the installed packages, without the demo's validation and test rows
and their near-duplicates. Each student learns to predict the direction of the teacher's sentence embedding from its
first token, and from the mean of its tokens. An interrupted run resumes from its last epoch. On 2 cores with bfloat16,
the teacher's embeddings take 4 minutes, and each student 3 to 9.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from torch.nn import functional
from training_data import (
    MAX_TOKENS,
    TrainingData,
    batches,
    mean_pooled,
    padded,
    prepare,
    word_vectors,
    write_atomically,
)
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
POSITIONS = 256
SPECIAL = {
    "wordpiece": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    "bpe": {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"},
}


class Student(NamedTuple):
    """Architecture, kind of tokenizer, vocabulary size, shape and training of one student."""

    model_type: str
    tokenizer: str
    vocabulary: int
    shape: dict[str, int]
    learning_rate: float
    epochs: float


# Each is below 3 MB in half precision. The two deeper ones need a lower learning rate. The shallowest is the fastest
# and gains least: its accuracy was 4.8 points above that of random weights after two epochs, and 6.1 after three.
STUDENTS = {
    "bert-3x128": Student(
        "bert",
        "wordpiece",
        6000,
        {"num_hidden_layers": 3, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512},
        5e-3,
        2,
    ),
    "distilbert-2x160": Student(
        "distilbert", "wordpiece", 4800, {"n_layers": 2, "dim": 160, "n_heads": 4, "hidden_dim": 640}, 5e-3, 3
    ),
    "electra-6x112": Student(
        "electra",
        "wordpiece",
        8000,
        {
            "num_hidden_layers": 6,
            "hidden_size": 112,
            "num_attention_heads": 4,
            "intermediate_size": 448,
            "embedding_size": 56,
        },
        3e-3,
        2,
    ),
    "roberta-4x128": Student(
        "roberta",
        "bpe",
        5000,
        {"num_hidden_layers": 4, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 448},
        4e-3,
        2,
    ),
}


def train_tokenizer(student: Student, texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a fast tokenizer of the student's kind on the texts."""
    special = SPECIAL[student.tokenizer]
    tokens = list(special.values())
    if student.tokenizer == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=special["unk"]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=student.vocabulary, special_tokens=tokens, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=student.vocabulary, special_tokens=tokens, initial_alphabet=alphabet, show_progress=False
        )
    tokenizer.train_from_iterator(texts, trainer)
    if student.tokenizer == "wordpiece":  # the trainer assigns ids in a different order each time
        pieces = [*tokens, *sorted(set(tokenizer.get_vocab()) - set(tokens))]
        tokenizer.model = models.WordPiece(
            {piece: index for index, piece in enumerate(pieces)}, unk_token=special["unk"], max_input_chars_per_word=100
        )
    first, last = special["cls"], special["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1"
        if student.tokenizer == "wordpiece"
        else f"{first} $A {last} {last} $B {last}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )
    names = ["input_ids", "attention_mask"]
    if student.model_type in ("bert", "electra"):
        names.insert(1, "token_type_ids")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS,
        model_input_names=names,
        **{f"{name}_token": token for name, token in special.items()},
    )


class Distilled(nn.Module):
    """A student's encoder with linear maps of its first token and its mean token to the teacher's embedding space."""

    def __init__(self, encoder: nn.Module, width: int, teacher_width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.from_first = nn.Linear(width, teacher_width)
        self.from_mean = nn.Linear(width, teacher_width)

    def forward(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return two normalized predictions of the teacher's embedding, each of shape (batch, teacher's width)."""
        output = self.encoder(**inputs)
        hidden = output.last_hidden_state
        pooled = getattr(output, "pooler_output", None)  # BERT's head reads its pooler, the others' the first token
        first = self.from_first(hidden[:, 0] if pooled is None else pooled)
        mean = self.from_mean(mean_pooled(hidden, inputs["attention_mask"]))
        return functional.normalize(first, dim=-1), functional.normalize(mean, dim=-1)


def loss_of(
    predicted: torch.Tensor, target: torch.Tensor, contrast: float = 0.1, temperature: float = 0.05
) -> torch.Tensor:
    """Return the cosine distance plus the cross entropy between similarities in the batch and the teacher's."""
    distance = 1 - (predicted * target).sum(-1).mean()
    similarities = functional.softmax(target @ target.T / temperature, dim=-1)
    return distance + contrast * functional.cross_entropy(predicted @ target.T / temperature, similarities)


def new_model(student: Student, tokenizer: PreTrainedTokenizerFast) -> Any:
    """Build a student's encoder, as its sequence classifier uses it, with random weights."""
    roberta = student.model_type == "roberta"  # its positions start after the padding id, and it has no second segment
    config = AutoConfig.for_model(
        student.model_type,
        vocab_size=len(tokenizer),
        max_position_embeddings=POSITIONS + (tokenizer.pad_token_id + 1 if roberta else 0),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        **student.shape,
        **({"type_vocab_size": 1} if roberta else {}),
    )
    model = AutoModelForSequenceClassification.from_config(config).base_model
    # Twice as fast as the fused kernel with bfloat16 on a CPU, where its backward pass is slow.
    model.set_attn_implementation("eager")
    return model


class Training:
    """The state of one student's training, which is saved after each epoch and restored from `saved`."""

    def __init__(self, net: Distilled, learning_rate: float, steps: int, saved: Path) -> None:
        self.net, self.steps, self.saved = net, steps, saved
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, (step + 1) / (0.05 * steps)) * max(0.0, 1 - step / steps)
        )
        self.epoch = self.step = 0
        if saved.exists():
            state = torch.load(saved)
            self.epoch, self.step = state.pop("epoch"), state.pop("step")
            for name, values in state.items():
                getattr(self, name).load_state_dict(values)

    def train_step(self, inputs: dict[str, torch.Tensor], target: torch.Tensor) -> float:
        """Take one optimizer step; return the cosine distance of the first token's prediction from the target."""
        with torch.autocast("cpu", torch.bfloat16):
            predictions = self.net(inputs)
        self.optimizer.zero_grad()
        torch.stack([loss_of(predicted.float(), target) for predicted in predictions]).sum().backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1
        return 1 - float((predictions[0].detach().float() * target).sum(-1).mean())

    def save(self) -> None:
        """Save the state at the end of an epoch."""
        self.epoch += 1
        state = {name: getattr(self, name).state_dict() for name in ("net", "optimizer", "scheduler")}
        state |= {"epoch": self.epoch, "step": self.step}
        write_atomically(self.saved, lambda path: torch.save(state, path))


def distill(name: str, data: TrainingData, options: argparse.Namespace) -> None:
    """Train one student and save it in half precision in a folder next to this file."""
    student = STUDENTS[name]
    tokenizer = train_tokenizer(student, data.texts)
    ids = tokenizer(data.texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    torch.manual_seed(options.seed)
    model = new_model(student, tokenizer)
    embedding = model.get_input_embeddings()
    with torch.no_grad():
        embedding.weight.copy_(word_vectors(options.teacher, tokenizer, embedding.embedding_dim))
    net = Distilled(model, model.config.hidden_size, data.embeddings.shape[1]).eval()  # eval: without dropout
    steps = math.ceil((options.epochs or student.epochs) * math.ceil(len(ids) / options.batch_size))
    training = Training(
        net, student.learning_rate, steps, options.cache / f"{name}-{steps}-{options.batch_size}-{options.seed}.pt"
    )
    started, distance = time.perf_counter(), 1.0
    while training.step < steps:
        rng = random.Random(options.seed * 1000 + training.epoch)
        for batch in batches([len(row) for row in ids], options.batch_size, rng)[: steps - training.step]:
            inputs = padded([ids[i] for i in batch], tokenizer.pad_token_id)
            target = torch.from_numpy(data.embeddings[batch]).float()
            distance += 0.01 * (training.train_step(inputs, target) - distance)
            if training.step % 200 == 0:
                seconds = time.perf_counter() - started
                print(f"{name} step {training.step}/{steps} distance {distance:.3f} {seconds:.0f} s", flush=True)
        training.save()
    save(model, tokenizer, HERE / name)


def save(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save the encoder (float16, without a head) and tokenizer in Hugging Face's format; measure.py writes the card."""
    temporary = folder.with_name("tmp-" + folder.name)
    shutil.rmtree(temporary, ignore_errors=True)
    model.half().save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    folder.mkdir(exist_ok=True)
    for path in temporary.iterdir():
        path.replace(folder / path.name)
    temporary.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", type=Path, help="folder of all-MiniLM-L6-v2 in Hugging Face's format")
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS))
    parser.add_argument("--epochs", type=float, help="passes over the texts (default: each student's own)")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir(), "distill"), help="texts, embeddings, checkpoints"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = prepare(options.teacher, options.cache)
    for name in options.students:
        distill(name, data, options)


if __name__ == "__main__":
    main()
