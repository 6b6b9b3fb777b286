"""What a run of training is handed: a trial's parameters, its model and data, and how it is carried out."""

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
    """All that a run needs: what to train, on what, how it is carried out, and when to stop or save."""

    params: TrialParams
    task: Task
    candidate: Candidate
    train: Features
    validation: Features | None  # None: nothing is evaluated (the final training on all data)
    scorer: Scorer
    rungs_per_epoch: int
    seed: int
    folder: Path  # for checkpoints
    execution: Execution
    attempt: int = 1  # how often the run was handed out: an older attempt's checkpoint never replaces a newer one's
    stop: threading.Event = field(default_factory=threading.Event)
    on_checkpoint: Callable[[Path], None] = lambda path: None
    checkpoint_seconds: float = 60.0  # at most so long without a checkpoint; less where one is cheap
    prefixes: PrefixCache | None = None  # the machine's cache of what frozen layers compute
    micro_batches: MicroBatchCache | None = None  # what the machine knows of micro-batches that fit
    epochs_to_train: float | None = None  # stop after so many (early stopping found them); the schedule stays
    folds: tuple[tuple[Features, Features], ...] = ()  # each fold's own train and validation; the first's are above

    @property
    def frozen_layers(self) -> int:
        return self.params.resolve_frozen_layers(self.candidate.stack.count)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train) / self.params.batch_size)

    def rung_steps(self) -> list[int]:
        """The optimizer steps after which a rung is reported: `rungs_per_epoch` in each epoch, the last at its end."""
        per_epoch, rungs = self.steps_per_epoch, self.rungs_per_epoch
        whole = self.params.epochs * rungs
        if self.epochs_to_train is not None:
            whole = max(1, min(whole, round(self.epochs_to_train * rungs)))
        return [math.ceil(rung * per_epoch / rungs) for rung in range(1, whole + 1)]
