"""Make the quickstart's four small pre-trained encoders by distillation from all-MiniLM-L6-v2.

    python examples/models/distil.py MINILM_FOLDER

MINILM_FOLDER holds the teacher in Hugging Face's format (sentence-transformers/all-MiniLM-L6-v2, Apache-2.0). The text
is the English that every installation holds: docstring paragraphs of the standard library and the installed packages,
without the demo's validation and test rows and whatever resembles them. Each student learns to give, from its first
token and from the mean of its tokens, the direction of the teacher's sentence embedding. An interrupted run goes
on from its last epoch. On 2 cores with bfloat16: 4 minutes for the teacher's embeddings, then 3 to 9 for each student.
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
from lessons import MAX_TOKENS, Lessons, batches, mean_pooled, padded, prepare, word_vectors, write_atomically
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
POSITIONS = 256
SPECIAL = {
    "wordpiece": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    "bpe": {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"},
}


class Student(NamedTuple):
    """One of the four: its architecture, the way its tokenizer cuts words, its vocabulary and its shape."""

    model_type: str
    tokenizer: str
    vocabulary: int
    shape: dict[str, int]
    learning_rate: float
    epochs: float


# Sizes keep each below 3 MB in half precision; the deeper two take a lower learning rate. The shallowest is the fastest
# and gains least: after two epochs it was 4.8 points ahead of random weights, after three 6.1.
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
    """A fast tokenizer of the student's kind, its vocabulary learnt from the texts."""
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
    if student.tokenizer == "wordpiece":  # the trainer numbers its pieces in another order each time
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
    """A student's encoder with two linear maps into the teacher's space: of its first token, and of its mean token."""

    def __init__(self, encoder: nn.Module, width: int, teacher_width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.from_first = nn.Linear(width, teacher_width)
        self.from_mean = nn.Linear(width, teacher_width)

    def forward(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Two normalised guesses at the teacher's embedding, each of shape (batch, teacher's width)."""
        output = self.encoder(**inputs)
        hidden = output.last_hidden_state
        pooled = getattr(output, "pooler_output", None)  # BERT's head reads its pooler, the others' the first token
        first = self.from_first(hidden[:, 0] if pooled is None else pooled)
        mean = self.from_mean(mean_pooled(hidden, inputs["attention_mask"]))
        return functional.normalize(first, dim=-1), functional.normalize(mean, dim=-1)


def loss_of(guess: torch.Tensor, truth: torch.Tensor, contrast: float = 0.1, temperature: float = 0.05) -> torch.Tensor:
    """Cosine distance, plus how far the batch's likeness to one another differs from the teacher's (cross entropy)."""
    distance = 1 - (guess * truth).sum(-1).mean()
    target = functional.softmax(truth @ truth.T / temperature, dim=-1)
    return distance + contrast * functional.cross_entropy(guess @ truth.T / temperature, target)


def new_model(student: Student, tokenizer: PreTrainedTokenizerFast) -> Any:
    """A student's encoder, as its sequence classifier uses it, with random weights."""
    roberta = student.model_type == "roberta"  # counts positions from its padding's id on, and has no second segment
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
    # Twice as fast under bfloat16 on a CPU as the fused kernel, whose backward pass is slow there.
    model.set_attn_implementation("eager")
    return model


class Course:
    """One student's training: what must be kept to go on with it, and how far it has come."""

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

    def learn(self, inputs: dict[str, torch.Tensor], truth: torch.Tensor) -> float:
        """One optimizer step; the cosine distance of the first token's guess from the teacher's embedding."""
        with torch.autocast("cpu", torch.bfloat16):
            guesses = self.net(inputs)
        self.optimizer.zero_grad()
        torch.stack([loss_of(guess.float(), truth) for guess in guesses]).sum().backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1
        return 1 - float((guesses[0].detach().float() * truth).sum(-1).mean())

    def keep(self) -> None:
        self.epoch += 1
        state = {name: getattr(self, name).state_dict() for name in ("net", "optimizer", "scheduler")}
        state |= {"epoch": self.epoch, "step": self.step}
        write_atomically(self.saved, lambda path: torch.save(state, path))


def distil(name: str, lessons: Lessons, options: argparse.Namespace) -> None:
    """Train one student and save it, in half precision, beside this file."""
    student = STUDENTS[name]
    tokenizer = train_tokenizer(student, lessons.texts)
    ids = tokenizer(lessons.texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    torch.manual_seed(options.seed)
    model = new_model(student, tokenizer)
    embedding = model.get_input_embeddings()
    with torch.no_grad():
        embedding.weight.copy_(word_vectors(options.teacher, tokenizer, embedding.embedding_dim))
    net = Distilled(model, model.config.hidden_size, lessons.embeddings.shape[1]).eval()  # eval: without dropout
    steps = math.ceil((options.epochs or student.epochs) * math.ceil(len(ids) / options.batch_size))
    course = Course(
        net, student.learning_rate, steps, options.cache / f"{name}-{steps}-{options.batch_size}-{options.seed}.pt"
    )
    started, distance = time.perf_counter(), 1.0
    while course.step < steps:
        chance = random.Random(options.seed * 1000 + course.epoch)
        for batch in batches([len(row) for row in ids], options.batch_size, chance)[: steps - course.step]:
            inputs = padded([ids[i] for i in batch], tokenizer.pad_token_id)
            truth = torch.from_numpy(lessons.embeddings[batch]).float()
            distance += 0.01 * (course.learn(inputs, truth) - distance)
            if course.step % 200 == 0:
                seconds = time.perf_counter() - started
                print(f"{name} step {course.step}/{steps} distance {distance:.3f} {seconds:.0f} s", flush=True)
        course.keep()
    save(model, tokenizer, HERE / name)


def save(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """The encoder (float16, without head) and tokenizer in Hugging Face's format; measure.py writes the card."""
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
        "--cache", type=Path, default=Path(tempfile.gettempdir(), "distil"), help="texts, embeddings, checkpoints"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lessons = prepare(options.teacher, options.cache)
    for name in options.students:
        distil(name, lessons, options)


if __name__ == "__main__":
    main()
