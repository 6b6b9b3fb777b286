"""Small models, candidates and plans for the tests of training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.config.model_ref import ModelRef
from hpo.config.trial_params import TrialParams
from hpo.tasks.text.text_classification import TextClassification
from hpo.training.batches.features import Features
from hpo.training.execution import Execution
from hpo.training.models.candidate import Candidate, load_candidate
from hpo.training.plan import TrainingPlan
from tests.small_models import WORDS, save_model

HEAD = {"num_labels": 2, "id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
CLASSES = {**HEAD, "problem_type": "single_label_classification"}
FIRST_WORD = 5  # the ids before are special tokens


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Candidate]:
    """Make the candidate of an architecture once a session; it is never trained itself, only copied."""
    made: dict[Any, Candidate] = {}

    def make(architecture: str = "bert", layers: int = 2, **settings: Any) -> Candidate:
        key = (architecture, layers, *sorted(settings.items()))
        if key not in made:
            folder = save_model(tmp_path_factory.mktemp(architecture), architecture, layers, **settings)
            ref = ModelRef(name=str(folder), label=architecture)
            made[key] = load_candidate(ref, "AutoModelForSequenceClassification", CLASSES)
        return made[key]

    return make


def make_features(rows: int = 48, seed: int = 0, longest: int = 12, pad: int = 0) -> Features:
    """Sentences of 3 to `longest` words; the label says whether one of the first words of the list is there."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, longest + 1, rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = rng.integers(FIRST_WORD, len(WORDS), int(offsets[-1])).astype(np.int32)
    labels = np.array([(values[offsets[i] : offsets[i + 1]] < FIRST_WORD + 2).any() for i in range(rows)])
    columns = {"input_ids": (values, offsets)}
    return Features(columns, labels.astype(np.int64), lengths, {"input_ids": pad})


@pytest.fixture
def plan(candidate: Callable[..., Candidate], tmp_path: Path) -> Callable[..., TrainingPlan]:
    """Make a plan; keywords go to the trial's parameters, `of` overrides fields of the plan."""

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
