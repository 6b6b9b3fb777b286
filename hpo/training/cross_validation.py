"""k-fold cross-validation: trains a `FineTuning` of each fold rung by rung, so that a trial can be pruned early.

    run = start_training(plan)
    for report in run.reports():        # the mean over the folds and their standard deviation
        ...

Between its rungs a fold is suspended: in memory where all folds fit, else in its checkpoint. The results are the same.
"""

import statistics
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hpo.config.trial_params import Report
from hpo.training.checkpoints.checkpoint import Progress, fold_folder, random_state, saved_progress, set_random_state
from hpo.training.early_stopping import outcome_rung, should_stop_early
from hpo.training.fine_tune import FineTuning, Stopped
from hpo.training.memory.micro_batch import has_room
from hpo.training.memory.out_of_memory import release_memory
from hpo.training.plan import TrainingPlan


@dataclass
class SuspendedFold:
    """A fold's run between two rungs, with its random state."""

    run: FineTuning
    reports: Generator[Report, None, None]
    random: dict[str, torch.Tensor]


class CrossValidation:
    """One run of a plan with folds. Each fold has its own folder of checkpoints in the plan's folder.

    Early stopping uses the mean, so that all folds train equally long. There is no final model.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = plan
        self.execution = plan.execution  # replaced as folds decide (a micro-batch): the next fold starts with it
        self._suspended: dict[int, SuspendedFold] = {}
        self._folders = [fold_folder(plan.folder, number) for number in range(1, len(plan.folds) + 1)]
        self._reported = [_saved_reports(folder, plan.study) for folder in self._folders]
        self._last = len(plan.rung_steps())
        self._seconds_load = 0.0
        self.progress = Progress()

    def reports(self) -> Generator[Report, None, None]:
        """Train the folds, and yield their mean at each rung. Raises `Stopped`, `Diverged` or `OutOfMemory`.

        A resumed run yields the rungs that all folds had reached again, without training: the process may have been
        killed after the last fold had saved and before the mean was reported.
        """
        try:
            while self.progress.rung < self._last:
                rung = self.progress.rung + 1
                for fold in range(len(self._folders)):
                    self._train_to(rung, fold)
                self.progress.rung = rung
                yield self._mean(rung)
                if should_stop_early(self._means(), self.plan.scorer.direction, self._patience):
                    return
        except Stopped:
            self.save()
            raise

    @property
    def _patience(self) -> int | None:
        return self.plan.params.early_stopping_patience

    def _means(self) -> list[float]:
        return [self._mean(rung).value for rung in range(1, self.progress.rung + 1)]

    @property
    def outcome(self) -> Report:
        """The mean of the rung whose value is the run's: the best one with a patience, else the last."""
        return self._mean(outcome_rung(self._means(), self.plan.scorer.direction, self._patience))

    def save(self) -> None:
        """Write a checkpoint of each fold that is suspended in memory; the others have one."""
        for fold in self._suspended.values():
            set_random_state(fold.random)
            fold.run.save()

    def _train_to(self, rung: int, fold: int) -> None:
        """Train a fold until it has reported `rung`, then suspend it."""
        reported = self._reported[fold]
        if len(reported) >= rung:
            return
        active = self._suspended.pop(fold, None) or self._open(fold)
        set_random_state(active.random)
        # A checkpoint is of a step, so that all rungs of one step are reported before it.
        while len(reported) < rung or active.run.at_rung:
            reported.append(next(active.reports))
        self.execution = active.run.execution
        if len(reported) == self._last:
            return
        if has_room(active.run.model, len(self._folders), self.execution):
            active.random = random_state()
            self._suspended[fold] = active
            return
        active.run.save()
        del active
        release_memory(self.execution.device)

    def _open(self, fold: int) -> SuspendedFold:
        """Start a fold's run, or resume it from its checkpoint."""
        train, validation = self.plan.folds[fold]
        params = self.plan.params.model_copy(update={"early_stopping_patience": None})
        plan = replace(self.plan, params=params, train=train, validation=validation, folds=())
        run = FineTuning(replace(plan, folder=self._folders[fold], execution=self.execution))
        self._seconds_load += run.seconds_load
        return SuspendedFold(run, run.reports(), random_state())

    def _mean(self, rung: int) -> Report:
        """Return the mean over the folds; `spread` is their standard deviation, seconds are summed."""
        reports = [reported[rung - 1] for reported in self._reported]
        names = reports[0].metrics
        return Report(
            step=rung,
            epoch=statistics.fmean(report.epoch for report in reports),
            value=statistics.fmean(report.value for report in reports),
            metrics={name: statistics.fmean(report.metrics[name] for report in reports) for name in names},
            spread={name: statistics.stdev(report.metrics[name] for report in reports) for name in names},
            train_loss=statistics.fmean(report.train_loss for report in reports),
            seconds=self._total_seconds(reports),
            peak_memory_mb=max(report.peak_memory_mb for report in reports),
        )

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent so far in each phase, summed over the folds."""
        return self._total_seconds([reported[-1] for reported in self._reported if reported])

    def _total_seconds(self, reports: list[Report]) -> dict[str, float]:
        phases = ("train", "evaluate", "checkpoint")
        spent = {phase: round(sum(report.seconds[phase] for report in reports), 3) for phase in phases}
        return {"load": round(self._seconds_load, 3), **spent}


def start_training(plan: TrainingPlan) -> FineTuning | CrossValidation:
    """Return the run of a plan, with or without folds; it resumes from its checkpoint where there is one."""
    return CrossValidation(plan) if plan.folds else FineTuning(plan)


def _saved_reports(folder: Path, study: str) -> list[Report]:
    progress = saved_progress(folder, study)
    return [] if progress is None else [Report(**report) for report in progress.reports]
