"""The input of a training run: a trial's parameters, its model and data, and how to execute it."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hpo.config.trial_params import TrialParams
from hpo.tasks.base import Task
from hpo.tasks.metrics.scorer import Scorer
from hpo.training.batches.features import Features
from hpo.training.execution import Execution
from hpo.training.frozen.cache import PrefixCache
from hpo.training.memory.micro_batch import MicroBatchCache
from hpo.training.models.candidate import Candidate


@dataclass(frozen=True)
class TrainingPlan:
    """One training run: parameters, data, device, and when it stops or saves."""

    params: TrialParams
    task: Task
    candidate: Candidate
    train: Features
    validation: Features | None  # None: no evaluation (the final training on all data)
    scorer: Scorer
    rungs_per_epoch: int
    seed: int
    folder: Path  # of the run's checkpoints
    execution: Execution
    study: str = ""  # the identity of its study, in each checkpoint; empty: of none
    attempt: int = 1  # counts the workers that claimed the trial; an older attempt never replaces a newer checkpoint
    stop: threading.Event = field(default_factory=threading.Event)  # set: save and raise `Stopped`
    on_checkpoint: Callable[[Path], None] = lambda path: None  # called with the path of each checkpoint written
    checkpoint_seconds: float = 60.0  # the longest time between checkpoints; shorter where saving is fast
    prefixes: PrefixCache | None = None  # the machine's frozen-prefix cache; None: none is used
    micro_batches: MicroBatchCache | None = None  # the machine's cache of micro-batches that fit; None: not measured
    epochs_to_train: float | None = None  # stop after so many (as early stopping did); the schedule is unchanged
    folds: tuple[tuple[Features, Features], ...] = ()  # (train, validation) of each fold; `train` is the first's

    @property
    def frozen_layers(self) -> int:
        """The number of bottom layers that are not trained."""
        return self.params.resolve_frozen_layers(self.candidate.stack.count)

    @property
    def steps_per_epoch(self) -> int:
        """The number of optimizer steps in an epoch."""
        return math.ceil(len(self.train) / self.params.batch_size)

    def rung_steps(self) -> list[int]:
        """Return the optimizer step that completes each rung: `rungs_per_epoch` an epoch, the last at its end."""
        per_epoch, rungs = self.steps_per_epoch, self.rungs_per_epoch
        count = self.params.epochs * rungs
        if self.epochs_to_train is not None:
            count = max(1, min(count, round(self.epochs_to_train * rungs)))
        return [math.ceil(rung * per_epoch / rungs) for rung in range(1, count + 1)]
