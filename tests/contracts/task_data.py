"""The data of the contract tests of tasks: rows that a tiny model can learn from, and the models for each task."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpo.tasks.task_data import TaskData
from tests.small_models import AUDIO, VISION

GOOD, BAD = ("good", "fine", "great"), ("bad", "poor", "awful")
FILLERS = "the a film was very not".split()


def _sentence(rng: random.Random, *put: str) -> list[str]:
    words = [rng.choice(FILLERS) for _ in range(rng.randint(3, 9))]
    for word in put:
        words.insert(rng.randrange(len(words) + 1), word)
    return words


def text_classification(rng: random.Random) -> dict[str, Any]:
    good = rng.random() < 0.5
    return {"text": " ".join(_sentence(rng, rng.choice(GOOD if good else BAD))), "label": "up" if good else "down"}


def text_regression(rng: random.Random) -> dict[str, Any]:
    words = _sentence(rng, rng.choice(GOOD), rng.choice(BAD))
    return {"text": " ".join(words), "score": 500.0 + 40 * sum(word in GOOD for word in words) + 3.5 * len(words)}


def multi_label(rng: random.Random) -> dict[str, Any]:
    words = _sentence(rng, *(rng.choice(group) for group in (GOOD, BAD) if rng.random() < 0.6))
    labels = [name for name, group in (("up", GOOD), ("down", BAD)) if set(words) & set(group)]
    return {"text": " ".join(words), "labels": labels}


def token_classification(rng: random.Random) -> dict[str, Any]:
    words = _sentence(rng, rng.choice(GOOD), rng.choice(BAD))
    tags = ["B-up" if word in GOOD else "B-down" if word in BAD else "O" for word in words]
    return {"tokens": words, "ner_tags": tags}


def question_answering(rng: random.Random) -> dict[str, Any]:
    words = _sentence(rng, rng.choice(GOOD), rng.choice(BAD)) * rng.randint(1, 4)
    good = rng.random() < 0.5
    answer = next(word for word in words if word in (GOOD if good else BAD))
    context = " ".join(words)
    start = len(" ".join([*words[: words.index(answer)], ""]))
    return {
        "question": "was the film good" if good else "was the film bad",
        "context": context,
        "answers": {"text": [answer], "answer_start": [start]},
    }


def multiple_choice(rng: random.Random) -> dict[str, Any]:
    choices = [" ".join(rng.sample(group, 2)) for group in (GOOD, BAD, BAD, BAD)[: rng.randint(2, 4)]]
    answer = choices[0]
    rng.shuffle(choices)
    return {"question": rng.choice(FILLERS), "choices": choices, "label": choices.index(answer)}


def summarization(rng: random.Random) -> dict[str, Any]:
    words = _sentence(rng, rng.choice(GOOD), rng.choice(BAD))
    return {"document": " ".join(words), "summary": " ".join(word for word in words if word in GOOD + BAD)}


def translation(rng: random.Random) -> dict[str, Any]:
    words = _sentence(rng, rng.choice(GOOD))
    other = dict(zip((*FILLERS, *GOOD), ("a", "the", "not", "very", "was", "film", *BAD), strict=True))
    return {"translation": {"en": " ".join(words), "de": " ".join(other[word] for word in words)}}


def causal_lm(rng: random.Random) -> dict[str, Any]:
    words = _sentence(rng, rng.choice(GOOD), rng.choice(BAD))
    return {"prompt": " ".join(words), "completion": " ".join(word for word in words if word in GOOD + BAD)}


def image_files(folder: Path, rows: int, rng: random.Random) -> None:
    """Write noise of odd sizes, bright at the top or at the bottom, in a folder for each class."""
    import numpy as np
    from PIL import Image

    for row in range(rows):
        label = ("up", "down")[row % 2]
        noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 120, (20 + row % 5, 24, 3), dtype=np.uint8)
        half = noise[:10] if label == "up" else noise[-10:]
        half += 120
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(folder / label / f"{row}.png")


def audio_files(folder: Path, rows: int, rng: random.Random) -> None:
    """Write noisy tones, high or low, of various lengths, rates and channels, in a folder for each class."""
    import numpy as np
    import soundfile

    for row in range(rows):
        label, pitch = (("high", 400.0), ("low", 100.0))[row % 2]
        noise = np.random.default_rng(rng.randrange(2**32))
        rate = (2_000, 8_000, 3_000)[row % 3]
        seconds = noise.uniform(0.2, 0.6)
        times = np.arange(round(seconds * rate)) / rate
        clip = 0.3 * np.sin(2 * np.pi * pitch * times) + 0.02 * noise.standard_normal(len(times))
        (folder / label).mkdir(parents=True, exist_ok=True)
        channels = clip if row % 4 else np.stack([clip, clip], 1)
        soundfile.write(folder / label / f"{row}.{('wav', 'flac')[row % 5 == 0]}", channels, rate)


def speech_files(folder: Path, rows: int, rng: random.Random) -> None:
    """Write tones whose pitch encodes a letter, in one folder for all splits, and a table of their transcripts."""
    import numpy as np
    import soundfile

    pitches = {"a": 100.0, "b": 300.0, " ": 0.0}
    clips = folder.parent / "clips"
    clips.mkdir(exist_ok=True)
    lines = []
    for row in range(rows):
        noise = np.random.default_rng(rng.randrange(2**32))
        text = " ".join("".join(rng.choice("ab") for _ in range(rng.randint(1, 2))) for _ in range(rng.randint(1, 2)))
        times = np.arange(400) / 2_000
        clip = np.concatenate([0.3 * np.sin(2 * np.pi * pitches[letter] * times) for letter in text])
        name = f"{folder.name}-{row}.wav"
        soundfile.write(clips / name, clip + 0.01 * noise.standard_normal(len(clip)), 2_000)
        lines.append(json.dumps({"audio": f"clips/{name}", "transcript": text.upper() + "."}))
    folder.with_suffix(".jsonl").write_text("\n".join(lines) + "\n")


def class_number(answer: dict[str, Any], data: TaskData) -> Any:
    return data.label_names.index(answer["label"]) if data.label_names else answer["label"]


def class_vector(answer: dict[str, Any], data: TaskData) -> list[int]:
    return [int(name in answer["label"]) for name in data.label_names]


def choice_index(answer: dict[str, Any], data: TaskData) -> int:
    return int(answer["choice"])


def tag_numbers(answer: dict[str, Any], data: TaskData) -> tuple[int, ...]:
    return tuple(data.label_names.index(tag) for tag in answer["tags"])


def approximate_number(answer: dict[str, Any], data: TaskData) -> Any:
    return pytest.approx(answer["label"], rel=1e-4)


ENCODERS = ("bert", "roberta", "electra", "deberta-v2", "distilbert", "modernbert", "albert")
ALL = (*ENCODERS, "gpt2", "llama", "t5", "bart")


@dataclass(frozen=True)
class Case:
    """One task: a row of it or its files, and the architectures tested, of which `quick` is in the quick tests."""

    row: Callable[[random.Random], dict[str, Any]] = text_classification
    files: Callable[[Path, int, random.Random], None] | None = None
    models: tuple[str, ...] = ALL
    quick: str = "bert"
    adapted: tuple[str, ...] = ("bert", "t5")
    generates: bool = False  # texts, token by token
    pipeline: bool = True  # whether transformers 5 has one for the task
    baseline: bool = True
    as_prediction: Callable[[dict[str, Any], TaskData], Any] = class_number  # the form of `align_predictions`


def without(*names: str) -> tuple[str, ...]:
    """Return all architectures but those without a suitable head, or that `check_model` rejects."""
    return tuple(name for name in ALL if name not in names)


def only(*names: str) -> dict[str, Any]:
    """Return these architectures, the first of them for the quick tests."""
    return {"models": names, "quick": names[0], "adapted": names}


CASES = {
    "text-classification": Case(),
    # Without a bias there is no parameter to keep the mean of the labels in.
    "text-regression": Case(text_regression, models=without("gpt2", "llama"), as_prediction=approximate_number),
    "multi-label-classification": Case(multi_label, quick="electra", as_prediction=class_vector),
    "token-classification": Case(
        token_classification, models=without("bart"), quick="roberta", as_prediction=tag_numbers
    ),
    "question-answering": Case(question_answering, quick="distilbert", pipeline=False),
    "multiple-choice": Case(multiple_choice, **only(*ENCODERS), pipeline=False, as_prediction=choice_index),
    "summarization": Case(summarization, **only("t5", "bart"), generates=True, pipeline=False),
    "translation": Case(translation, **only("bart", "t5"), generates=True, pipeline=False),
    "causal-lm": Case(causal_lm, **only("gpt2", "llama"), generates=True, baseline=False),
    "image-classification": Case(files=image_files, **only(*VISION)),
    "audio-classification": Case(files=audio_files, **only(*AUDIO)),
    "speech-recognition": Case(files=speech_files, **only("wav2vec2", "hubert")),
}


def write_rows(task: str, folder: Path, train: int = 64, other: int = 24) -> Path:
    """Write train, validation and test files of a task to a folder, the same for each call."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    case = CASES[task]
    if case.files is not None:
        for split, rows in {"train": train, "validation": other, "test": other}.items():
            case.files(folder / split, rows, rng)
        return folder
    seen: set[str] = set()
    for split, rows in {"train": train, "validation": other, "test": other}.items():
        lines: list[str] = []
        while len(lines) < rows:
            line = json.dumps(case.row(rng))
            if line not in seen:
                seen.add(line)
                lines.append(line)
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder
