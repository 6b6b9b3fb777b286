"""k-fold validation: a run of a plan with folds is a `FineTuning` of each, taken rung by rung, so that pruning works.

    run = start_training(plan)
    for report in run.reports():        # the folds' mean, and how far they spread
        ...

A fold that waits for its turn stays in memory where all of them fit, else in its checkpoint: the numbers are the same.
"""

import statistics
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hpo.config.trial_params import Report
from hpo.training.checkpoints.checkpoint import Progress, fold_folder, random_state, saved_progress, set_random_state
from hpo.training.early_stopping import should_stop_early
from hpo.training.fine_tune import FineTuning, Stopped
from hpo.training.memory.micro_batch import has_room
from hpo.training.memory.out_of_memory import release
from hpo.training.plan import TrainingPlan


@dataclass
class Waiting:
    """A fold's run between two rungs, and where its random numbers stand."""

    run: FineTuning
    reports: Generator[Report, None, None]
    random: dict[str, torch.Tensor]


class CrossValidation:
    """One run of a plan with folds. Each fold has a folder of its own for checkpoints, in the plan's.

    Early stopping looks at the mean, so that all folds train equally long. No model is left in the end.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = plan
        self.execution = plan.execution  # follows what the folds find out: what one needs, all do alike
        self._waiting: dict[int, Waiting] = {}
        self._folders = [fold_folder(plan.folder, number) for number in range(1, len(plan.folds) + 1)]
        self._told = [_reports_so_far(folder) for folder in self._folders]
        self._last = len(plan.rung_steps())
        self._seconds_load = 0.0
        self.progress = Progress()

    def reports(self) -> Generator[Report, None, None]:
        """Train the folds, and yield their mean at each rung. Raises `Stopped`, `Diverged` or `OutOfMemory`.

        A run that goes on from checkpoints yields the rungs that all folds had reached once more, without training:
        the process may have been killed when the last fold had saved, and none had heard of the mean.
        """
        try:
            while self.progress.rung < self._last:
                rung = self.progress.rung + 1
                for fold in range(len(self._folders)):
                    self._train_to(rung, fold)
                self.progress.rung = rung
                yield self._mean(rung)
                means = [self._mean(reached).value for reached in range(1, rung + 1)]
                if should_stop_early(means, self.plan.scorer.direction, self.plan.params.early_stopping_patience):
                    return
        except Stopped:
            self.save()
            raise

    def save(self) -> None:
        """Write a checkpoint of each fold that waits in memory; the others have theirs."""
        for waiting in self._waiting.values():
            set_random_state(waiting.random)
            waiting.run.save()

    def _train_to(self, rung: int, fold: int) -> None:
        """Have a fold report `rung`, if it has not, and wait for the next one."""
        told = self._told[fold]
        if len(told) >= rung:
            return
        waiting = self._waiting.pop(fold, None) or self._begin(fold)
        set_random_state(waiting.random)
        while len(told) < rung or waiting.run.at_rung:  # a checkpoint is of a step: it cannot lie between its rungs
            told.append(next(waiting.reports))
        self.execution = waiting.run.execution
        if len(told) == self._last:
            return
        if has_room(waiting.run.model, len(self._folders), self.execution):
            waiting.random = random_state()
            self._waiting[fold] = waiting
            return
        waiting.run.save()
        del waiting
        release(self.execution.device)

    def _begin(self, fold: int) -> Waiting:
        """A fold's run from its start, or from its checkpoint."""
        train, validation = self.plan.folds[fold]
        patient = self.plan.params.model_copy(update={"early_stopping_patience": None})
        plan = replace(self.plan, params=patient, train=train, validation=validation, folds=())
        run = FineTuning(replace(plan, folder=self._folders[fold], execution=self.execution))
        self._seconds_load += run.seconds_load
        return Waiting(run, run.reports(), random_state())

    def _mean(self, rung: int) -> Report:
        reports = [told[rung - 1] for told in self._told]
        names = reports[0].metrics
        return Report(
            step=rung,
            epoch=statistics.fmean(report.epoch for report in reports),
            value=statistics.fmean(report.value for report in reports),
            metrics={name: statistics.fmean(report.metrics[name] for report in reports) for name in names},
            spread={name: statistics.stdev(report.metrics[name] for report in reports) for name in names},
            train_loss=statistics.fmean(report.train_loss for report in reports),
            seconds=self._seconds_to(reports),
            peak_memory_mb=max(report.peak_memory_mb for report in reports),
        )

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds so far by phase, of all folds."""
        return self._seconds_to([told[-1] for told in self._told if told])

    def _seconds_to(self, reports: list[Report]) -> dict[str, float]:
        phases = ("train", "evaluate", "checkpoint")
        spent = {phase: round(sum(report.seconds[phase] for report in reports), 3) for phase in phases}
        return {"load": round(self._seconds_load, 3), **spent}


def start_training(plan: TrainingPlan) -> FineTuning | CrossValidation:
    """The run of a plan, with folds or without, from its checkpoint where there is one."""
    return CrossValidation(plan) if plan.folds else FineTuning(plan)


def _reports_so_far(folder: Path) -> list[Report]:
    progress = saved_progress(folder)
    return [] if progress is None else [Report(**report) for report in progress.reports]
