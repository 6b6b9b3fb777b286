"""All that one process needs to carry out runs of a study, kept warm between them."""

import math
import threading
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from datasets import concatenate_datasets

from hpo.config.first_trials import ModelTraits
from hpo.config.study import StudyConfig
from hpo.config.trial_params import TrialParams
from hpo.core.paths import checkpoints_folder, folder_name, home
from hpo.data.splits.create import take
from hpo.data.splits.kfold import FoldIndices
from hpo.data.splits.subsample import sample_rows
from hpo.errors import StudyError
from hpo.search.first_trials import FirstTrials, first_trials
from hpo.tasks.metrics.scorer import Scorer
from hpo.tasks.registry import get_task, with_metric, with_portfolio
from hpo.tasks.task_data import TaskData
from hpo.training.batches.encoding_cache import EncodingCache
from hpo.training.batches.features import Features
from hpo.training.checkpoints.remote import RemoteCheckpoints
from hpo.training.execution import Execution, apply
from hpo.training.frozen.cache import PrefixCache
from hpo.training.memory.micro_batch import MicroBatchCache
from hpo.training.models.candidate import Candidates, resolve_max_length
from hpo.training.plan import TrainingPlan


class StudyContext:
    """Task, data, metric, models and features of a study in this process."""

    def __init__(self, config: StudyConfig, execution: Execution, data: TaskData | None = None) -> None:
        self.config = config = with_portfolio(with_metric(config))
        self.execution = execution
        self.task = get_task(config.task).configure(config)
        self.data = data or self.task.prepare(config.data, config.seed)
        self.scorer: Scorer = self.task.scorer(config.metric, self.data)
        self.candidates = Candidates({ref.label: ref for ref in config.models}, self.task, self.data)
        self._features = EncodingCache(home() / "cache" / "tokens", self.task, self.data)
        self._prefixes = PrefixCache(home() / "cache" / "prefixes")
        self._micro_batches = MicroBatchCache(home() / "cache" / "memory")
        self.remote_checkpoints = open_remote_checkpoints(config)
        self.stop = threading.Event()
        self.attempt = 1  # of the trial in hand
        self.on_checkpoint: Callable[[Path], None] = lambda path: None
        apply(execution)

    def check_fingerprint(self, expected: str) -> None:
        """Raise `StudyError` when the data here is not what the study was made from."""
        if self.data.fingerprint != expected:
            raise StudyError(
                f"The data at {self.config.data.path} is not what study '{self.config.name}' was made from "
                f"(fingerprint {self.data.fingerprint[:12]}, the study's {expected[:12]})."
            )

    def features(self, split: str, model: str, places: Sequence[int] | None = None) -> Features:
        """The encoded rows of `split`, or those at `places`, for the candidate called `model`."""
        return self._features.get(split, self.candidates[model].processor, self.max_length(model), places)

    @property
    def ranked(self) -> bool:
        """Whether the models are ranked before the first trial."""
        return self.config.rank and not self.why_no_ranking()

    def why_no_ranking(self) -> str:
        """Why the study's models cannot be ranked; empty: they can."""
        if not self.task.supports_ranking:
            return f"{self.task.name} has no ranking: its labels are no classes and no numbers that features could tell"
        if len(self.config.labels) < 2:
            return "there is one model"
        return ""

    def first_trials(self, order: Sequence[str] = ()) -> FirstTrials:
        """What the study tries first; `order` is that of the ranked models, empty: there is no ranking."""
        return first_trials(self.config, self.traits(order or self.config.labels), ranked=bool(order))

    def traits(self, models: Sequence[str]) -> dict[str, ModelTraits]:
        """What of each of `models` decides which configurations suit it, in their order."""
        found = {}
        for label in models:
            candidate = self.candidates[label]
            config: Any = candidate.model.config
            found[label] = ModelTraits(candidate.stack.count, config.model_type, candidate.parameters)
        return found

    def max_length(self, model: str) -> int:
        """The most that the candidate called `model` reads of an example: tokens, or samples of sound."""
        return resolve_max_length(self.candidates[model], self.config.max_length, self.config.max_seconds)

    def plan(self, params: TrialParams, seed: int, folder: Path, execution: Execution | None = None) -> TrainingPlan:
        """The plan of one run on the training split, evaluated on validation."""
        folds = self._folds(params)
        train, validation = folds[0]
        return TrainingPlan(
            params=params,
            task=self.task,
            candidate=self.candidates[params.model],
            train=train,
            validation=validation,
            scorer=self.scorer,
            rungs_per_epoch=self.config.fidelity.rungs_per_epoch,
            seed=seed,
            folder=folder,
            execution=execution or self.execution,
            attempt=self.attempt,
            stop=self.stop,
            on_checkpoint=self.on_checkpoint,
            prefixes=self._prefixes,
            micro_batches=self._micro_batches,
            folds=tuple(folds) if len(folds) > 1 else (),
        )

    def _folds(self, params: TrialParams) -> list[tuple[Features, Features]]:
        """What a trial trains on and is validated on, for each fold: one pair where there are none."""
        folds = self.data.folds
        if not folds:
            drawn = self._drawn(params, [("train", list(range(len(self.data.train))))])
            train = self.features("train", params.model, drawn[0][1] if params.uses_subset else None)
            return [(train, self.features("validation", params.model))]
        held_out = [self.features(split, params.model, places) for split, places in folds]
        pairs = []
        for fold, validation in enumerate(held_out):
            others = self._drawn(params, folds[:fold] + folds[fold + 1 :])
            parts = [self.features(split, params.model, places) for split, places in others if places]
            pairs.append((reduce(Features.concatenate, parts), validation))
        return pairs

    def _drawn(self, params: TrialParams, parts: FoldIndices) -> FoldIndices:
        """The rows of `parts` that a trial trains on: by the study's seed, the same for all of its trials."""
        if not params.uses_subset:
            return parts
        whole = concatenate_datasets([take(self.data.splits[split], places) for split, places in parts])
        drawn = sample_rows(self.task.strata(whole), self.config.seed, params.train_fraction, params.shots)
        ends = np.cumsum([0, *(len(places) for _, places in parts)])
        return [
            (split, [places[place - first] for place in drawn if first <= place < first + len(places)])
            for (split, places), first in zip(parts, ends.tolist(), strict=False)
        ]

    def trial_folder(self, study: str, number: int) -> Path:
        """Where the checkpoints of one trial of `study` (the search or one of its stages) are kept."""
        return checkpoints_folder(self.config.name, self.config.checkpoints) / f"{study}-{number}"


def open_remote_checkpoints(config: StudyConfig) -> RemoteCheckpoints | None:
    """The copies of a study's checkpoints at a URL; None where it keeps none. Raises `ConfigError`."""
    if config.checkpoints is None or "://" not in config.checkpoints:
        return None
    return RemoteCheckpoints(config.checkpoints, folder_name(config.name))


def describe_data(data: TaskData) -> dict[str, Any]:
    """What a study records of its data: no rows, no path."""
    return {
        "sizes": data.sizes if data.test is not None else {**data.sizes, "test": 0},
        "labels": list(data.label_names),
        "columns": dict(data.columns),
        "notes": list(data.notes),
        "fingerprint": data.fingerprint,
    }


def versions() -> dict[str, str]:
    """The versions that decide what a run computes, and the commit of the folder, where there is one."""
    import platform
    import subprocess
    from importlib.metadata import version

    names = (
        "hpo-finetune",
        "torch",
        "transformers",
        "peft",
        "datasets",
        "tokenizers",
        "optuna",
        "numpy",
        "scikit-learn",
    )
    found = {name: version(name) for name in names} | {"python": platform.python_version()}
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
        if asked.returncode == 0:
            found["git"] = asked.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        found["git"] = "unknown"  # no git here: the commit is a courtesy, not needed for anything
    return found


def is_usable(value: float) -> bool:
    """Whether a metric's value can be compared: inf would be Optuna's best value for ever."""
    return math.isfinite(value)
