"""The context of a study in one process: data, models and settings, loaded once and shared by its trials."""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Self

import numpy as np
from datasets import concatenate_datasets

from hpo.config.first_trials import ModelTraits
from hpo.config.study import StudyConfig
from hpo.config.trial_params import TrialParams
from hpo.core.paths import checkpoints_folder, home, unique_name
from hpo.core.version import VERSION
from hpo.data.splits.create import take
from hpo.data.splits.kfold import FoldIndices
from hpo.data.splits.subsample import sample_rows
from hpo.errors import StudyError
from hpo.search.first_trials import FirstTrials, first_trials
from hpo.storage.records.final_model import DataRecord
from hpo.tasks.base import Task
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


@dataclass(frozen=True)
class Attempt:
    """One attempt at a trial: its number from 1, the request to stop it, and a callback for each checkpoint."""

    number: int = 1
    stop: threading.Event = field(default_factory=threading.Event)
    on_checkpoint: Callable[[Path], None] = lambda path: None


@dataclass(frozen=True)
class StudyContext:
    """Task, data, metric, models and features of a study in this process. `create` makes one."""

    config: StudyConfig
    execution: Execution
    task: Task
    data: TaskData
    scorer: Scorer
    candidates: Candidates
    encodings: EncodingCache
    prefixes: PrefixCache
    micro_batches: MicroBatchCache
    identity: str = ""  # of the study; empty: a check, which writes no file of a study

    @classmethod
    def create(
        cls, config: StudyConfig, execution: Execution, data: TaskData | None = None, identity: str = ""
    ) -> Self:
        """Load what `config` names and set this process up for `execution`. `data`: the prepared rows, if known.

        Raises `HpoError` where the data or the metric cannot be used; models are loaded when they are first needed.
        """
        config = with_portfolio(with_metric(config))
        task = get_task(config.task).configure(config)
        data = data or task.prepare(config.data, config.seed)
        cache = home() / "cache"
        apply(execution)
        return cls(
            config=config,
            execution=execution,
            task=task,
            data=data,
            scorer=task.scorer(config.metric, data),
            candidates=Candidates({ref.label: ref for ref in config.models}, task, data),
            encodings=EncodingCache(cache / "tokens", task, data),
            prefixes=PrefixCache(cache / "prefixes"),
            micro_batches=MicroBatchCache(cache / "memory"),
            identity=identity,
        )

    def check_fingerprint(self, expected: str) -> None:
        """Raise `StudyError` when the data here is not what the study was created from."""
        if self.data.fingerprint != expected:
            raise StudyError(
                f"The data at {self.config.data.path} is not what study '{self.config.name}' was created from: its "
                f"fingerprint is {self.data.fingerprint[:12]}, the study's {expected[:12]}."
            )

    def features(self, split: str, model: str, indices: Sequence[int] | None = None) -> Features:
        """Return the encoded rows of `split`, or those at `indices`, for the candidate labeled `model`."""
        return self.encodings.get(split, self.candidates[model].processor, self.max_length(model), indices)

    @property
    def ranked(self) -> bool:
        """Whether the models are ranked before the first trial."""
        return self.config.rank and not self.why_no_ranking()

    def why_no_ranking(self) -> str:
        """Return the reason for which the study's models cannot be ranked; empty where they can."""
        if not self.task.supports_ranking:
            return f"{self.task.name} has no ranking: its labels are neither classes nor numbers, which a ranking needs"
        if len(self.config.labels) < 2:
            return "there is one model"
        return ""

    def first_trials(self, order: Sequence[str] = ()) -> FirstTrials:
        """Return the configurations to try first; `order` lists the ranked models, empty without a ranking."""
        return first_trials(self.config, self.traits(order or self.config.labels), ranked=bool(order))

    def traits(self, models: Sequence[str]) -> dict[str, ModelTraits]:
        """Return what decides which configurations suit each of `models`, in their order."""
        found = {}
        for label in models:
            candidate = self.candidates[label]
            config: Any = candidate.model.config
            found[label] = ModelTraits(candidate.stack.count, config.model_type, candidate.parameters)
        return found

    def max_length(self, model: str) -> int:
        """Return the longest input of the candidate labeled `model`, in tokens or audio samples."""
        return resolve_max_length(self.candidates[model], self.config.max_length, self.config.max_seconds)

    def plan(
        self,
        params: TrialParams,
        seed: int,
        folder: Path,
        execution: Execution | None = None,
        attempt: Attempt | None = None,
    ) -> TrainingPlan:
        """Return the plan of one run that trains on the training split and is evaluated on validation.

        `execution`: the study's unless given; `attempt`: a first one that nobody stops unless given.
        """
        attempt = attempt or Attempt()
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
            study=self.identity,
            execution=execution or self.execution,
            attempt=attempt.number,
            stop=attempt.stop,
            on_checkpoint=attempt.on_checkpoint,
            prefixes=self.prefixes,
            micro_batches=self.micro_batches,
            folds=tuple(folds) if len(folds) > 1 else (),
        )

    def _folds(self, params: TrialParams) -> list[tuple[Features, Features]]:
        """Return training and validation features for each fold; one pair for data without folds."""
        folds = self.data.folds
        if not folds:
            sampled = self._sample(params, [("train", list(range(len(self.data.train))))])
            train = self.features("train", params.model, sampled[0][1] if params.uses_subset else None)
            return [(train, self.features("validation", params.model))]
        held_out = [self.features(split, params.model, indices) for split, indices in folds]
        pairs = []
        for fold, validation in enumerate(held_out):
            others = self._sample(params, folds[:fold] + folds[fold + 1 :])
            parts = [self.features(split, params.model, indices) for split, indices in others if indices]
            pairs.append((reduce(Features.concatenate, parts), validation))
        return pairs

    def _sample(self, params: TrialParams, parts: FoldIndices) -> FoldIndices:
        """Return the rows of `parts` that a trial trains on: sampled with the study's seed, so equal for all trials."""
        if not params.uses_subset:
            return parts
        rows = concatenate_datasets([take(self.data.splits[split], indices) for split, indices in parts])
        sampled = sample_rows(self.task.strata(rows), self.config.seed, params.train_fraction, params.shots)
        offsets = np.cumsum([0, *(len(indices) for _, indices in parts)])
        return [
            (split, [indices[row - first] for row in sampled if first <= row < first + len(indices)])
            for (split, indices), first in zip(parts, offsets.tolist(), strict=False)
        ]

    def trial_folder(self, study: str, number: int) -> Path:
        """Return the folder for the checkpoints of one trial of `study` (the search or one of its stages)."""
        return checkpoints_folder(self.config.name, self.identity, self.config.checkpoints) / f"{study}-{number}"


def open_remote_checkpoints(
    config: StudyConfig,
    identity: str,
    shutdown: threading.Event | None = None,
    warn: Callable[[str], None] | None = None,
) -> RemoteCheckpoints | None:
    """Open the copies of a study's checkpoints at a URL; None where the study keeps none. Raises `ConfigError`.

    Once `shutdown` is set, no answer is waited for; `warn` receives what goes wrong (default: the log).
    """
    if config.checkpoints is None or "://" not in config.checkpoints:
        return None
    return RemoteCheckpoints(config.checkpoints, unique_name(config.name, identity), identity, shutdown, warn)


def check_remote_checkpoints(config: StudyConfig, identity: str = "") -> None:
    """Raise `ConfigError` where the URL for copies of checkpoints cannot be written to."""
    if remote := open_remote_checkpoints(config, identity):
        remote.check()


def describe_data(data: TaskData) -> DataRecord:
    """Return what a study records of its data: no rows, no path."""
    return DataRecord(
        sizes=data.sizes if data.test is not None else {**data.sizes, "test": 0},
        labels=tuple(data.label_names),
        columns=dict(data.columns),
        notes=(*data.summary, *data.notes),
        fingerprint=data.fingerprint,
    )


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide what a run computes, and the git commit where there is one."""
    import platform
    import subprocess
    from importlib.metadata import version

    names = "torch transformers peft datasets tokenizers optuna numpy scikit-learn".split()
    found = {"hpo-finetune": VERSION} | {name: version(name) for name in names}
    found["python"] = platform.python_version()
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
        if asked.returncode == 0:
            found["git"] = asked.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        found["git"] = "unknown"  # git is not installed, or hangs on a network drive
    return found


def is_usable(value: float) -> bool:
    """Return whether a metric's value can be compared: Optuna would keep an infinite one as the best value."""
    return math.isfinite(value)
