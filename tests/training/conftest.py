"""Small candidates, features and plans for the tests of training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.config.model_ref import ModelRef
from hpo.config.trial_params import Report, TrialParams
from hpo.tasks.text.text_classification import TextClassification
from hpo.training.batches.features import Features
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning
from hpo.training.models.candidate import Candidate, load_candidate
from hpo.training.plan import TrainingPlan
from tests.small_models import WORDS, save_model

HEAD = {"num_labels": 2, "id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
CLASSES = {**HEAD, "problem_type": "single_label_classification"}
FIRST_WORD = 5  # lower ids are special tokens
CACHED = Execution(prefix_cache="used")  # uses the frozen-prefix cache whether it pays or not


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Candidate]:
    """Load the candidate of an architecture once a session: it is only copied, never trained."""
    loaded: dict[Any, Candidate] = {}

    def load(architecture: str = "bert", layers: int = 2, **settings: Any) -> Candidate:
        key = (architecture, layers, *sorted(settings.items()))
        if key not in loaded:
            folder = save_model(tmp_path_factory.mktemp(architecture), architecture, layers, **settings)
            ref = ModelRef(name=str(folder), label=architecture)
            loaded[key] = load_candidate(ref, "AutoModelForSequenceClassification", CLASSES)
        return loaded[key]

    return load


def make_features(rows: int = 48, seed: int = 0, longest: int = 12, pad: int = 0) -> Features:
    """Return sentences of 3 to `longest` random words; the label is whether one of the first two words occurs."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, longest + 1, rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = rng.integers(FIRST_WORD, len(WORDS), int(offsets[-1])).astype(np.int32)
    labels = np.array([(values[offsets[i] : offsets[i + 1]] < FIRST_WORD + 2).any() for i in range(rows)])
    columns = {"input_ids": (values, offsets)}
    return Features(columns, labels.astype(np.int64), lengths, {"input_ids": pad})


def make_splits(architecture: str = "bert") -> dict[str, Features]:
    """Return features of a train and a validation split that the frozen-prefix cache can store."""
    pad = 1 if architecture == "roberta" else 0
    splits = {"train": make_features(pad=pad), "validation": make_features(24, 1, pad=pad)}
    for features in splits.values():
        values, offsets = features.columns["input_ids"]
        values[offsets[1:] - 1] = 3  # T5 and BART read the end-of-text token
    return {split: replace(features, key=split) for split, features in splits.items()}


def few_words(features: Features, start: int = 8) -> Features:
    """Reduce features to the tokens `start`, `start + 1` and `start + 2`, in place, and return them."""
    values, offsets = features.columns["input_ids"]
    features.columns["input_ids"] = (start + values % 3, offsets)
    return features


def curve(reports: list[Report]) -> list[tuple[Any, ...]]:
    """Return all numbers of a run's reports except seconds and memory."""
    return [(r.step, r.epoch, r.value, r.train_loss, sorted(r.metrics.items())) for r in reports]


def train_steps(run: FineTuning, steps: int) -> FineTuning:
    """Train a run until it has done `steps` optimizer steps."""
    walk = run.steps()
    while run.progress.step < steps:
        next(walk)
    return run


@pytest.fixture
def plan(candidate: Callable[..., Candidate], tmp_path: Path) -> Callable[..., TrainingPlan]:
    """Build a plan: keywords are the trial's parameters, `of` overrides fields of the plan."""

    def make(
        architecture: str = "bert", layers: int = 2, of: dict[str, Any] | None = None, **params: Any
    ) -> TrainingPlan:
        task = TextClassification()
        pad = 1 if architecture == "roberta" else 0
        fields: dict[str, Any] = {
            "params": TrialParams(model=architecture, **{"batch_size": 8, "learning_rate": 1e-3, **params}),
            "task": task,
            "candidate": candidate(architecture, layers),
            "train": make_features(pad=pad),
            "validation": make_features(24, seed=1, pad=pad),
            "scorer": task.scorer("accuracy"),
            "rungs_per_epoch": 1,
            "seed": 3,
            "folder": tmp_path / "checkpoints",
            "execution": Execution(),
        }
        return TrainingPlan(**{**fields, **(of or {})})

    return make
