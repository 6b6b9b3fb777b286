"""The training loop: a generator that yields a `Report` at each rung. To prune a trial, stop iterating.

    run = FineTuning(plan)
    for report in run.reports():
        ...
    run.model

When `plan.stop` is set, the run saves its state after the current optimizer step and raises `Stopped`. A new
`FineTuning` of the same plan resumes there, with the same results as an uninterrupted run.
"""

import math
import resource
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpo.config.trial_params import Report
from hpo.errors import Diverged
from hpo.tasks.base import Task
from hpo.training.batches.batching import epoch_batches
from hpo.training.batches.features import Features, Indices
from hpo.training.batches.word_dropout import drop_words
from hpo.training.checkpoints.checkpoint import (
    CheckpointTimer,
    Progress,
    load_checkpoint,
    save_checkpoint,
    trained_tensors,
)
from hpo.training.early_stopping import outcome_rung, should_stop_early
from hpo.training.evaluate import Evaluation, evaluate
from hpo.training.execution import Execution
from hpo.training.frozen.partial_forward import PartialForward
from hpo.training.memory.accumulation import Accumulation
from hpo.training.model_setup import build_model
from hpo.training.models.layers import train_mode
from hpo.training.models.lora import AdapterWeights
from hpo.training.optimizer import build_optimizer, build_scheduler, decay_factor
from hpo.training.plan import TrainingPlan


class Stopped(Exception):
    """The plan's stop flag was set. The state is saved in the plan's folder; the same plan resumes from it."""


class FineTuning:
    """One run of a plan: its model, optimizer and progress. After the last report, `model` is that of `outcome`."""

    def __init__(self, plan: TrainingPlan) -> None:
        """Build the model and the optimizer, and restore the latest checkpoint of `plan.folder`, if there is one."""
        started = time.perf_counter()
        self.plan = plan
        self.adapter: AdapterWeights | None = None  # set at the end of a run with `peft`
        self._setup = build_model(plan)
        self.model = self._setup.model
        self._trainable = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = build_optimizer(self.model, plan.params, self._setup.depths)
        self._scheduler = build_scheduler(self._optimizer, plan.params, plan.steps_per_epoch * plan.params.epochs)
        task = _training_task(plan, self.model)
        self._accumulation = Accumulation(self.model, task, plan.params.label_smoothing, plan.execution)
        self._train, self._validation = _training_features(plan), plan.validation
        self._partial_forward: PartialForward | None = None
        self._pending_losses: list[torch.Tensor] = []  # of the last steps, still on the device
        self._best: dict[str, torch.Tensor] = {}  # the trained tensors of the best rung, where a patience is set
        self.progress = self._restore()
        self.seconds_load = time.perf_counter() - started
        self._timer = CheckpointTimer(plan.checkpoint_seconds, self._trainable, plan.attempt)

    def _restore(self) -> Progress:
        """Load the latest checkpoint into the run, random state included; without one, seed the random state."""
        plan = self.plan
        torch.manual_seed(plan.seed)
        # First: a checkpoint holds the statistics of those BatchNorm layers that are in train mode.
        train_mode(self.model, self._setup.frozen)
        optimizer, scheduler = self._optimizer, self._scheduler
        return load_checkpoint(plan.folder, plan.study, self.model, optimizer, scheduler, self._best) or Progress()

    @property
    def execution(self) -> Execution:
        """The plan's execution settings with those that the run chose itself, such as a micro-batch."""
        return self._accumulation.execution

    def reports(self) -> Generator[Report, None, None]:
        """Train, and yield a report at each rung. Raises `Stopped`, `Diverged` or `OutOfMemory`."""
        rungs = self.plan.rung_steps()
        for _ in self.steps():
            while self.at_rung:
                report = self._report()
                self._keep_best()
                ends = self.progress.rung == len(rungs) or self._should_stop_early()
                if ends:
                    self._restore_best()
                    self._finalize_model()
                yield report
                if ends:
                    return
                train_mode(self.model, self._setup.frozen)

    @property
    def at_rung(self) -> bool:
        """Whether a report is due. With fewer steps than rungs in an epoch, one step completes several rungs."""
        rungs = self.plan.rung_steps()
        return self.progress.rung < len(rungs) and self.progress.step == rungs[self.progress.rung]

    def steps(self) -> Generator[int, None, None]:
        """Train, and yield the number of optimizer steps after each. A resumed run yields its current number first."""
        plan, progress = self.plan, self.progress
        last = plan.rung_steps()[-1]
        self._skip_frozen_layers()
        train_mode(self.model, self._setup.frozen)
        self._fit_memory()
        if progress.step:
            yield progress.step  # stopped during a rung's evaluation, a run has not reported that rung yet
        while progress.step < last:
            batches = epoch_batches(plan.train.lengths, plan.params.batch_size, plan.seed, progress.epoch)
            features = self._epoch_features(progress.epoch)
            for rows in batches[progress.batch :]:
                self._save_if_due()
                self._train_step(features, rows)
                progress.batch += 1
                if progress.batch == len(batches):
                    progress.epoch, progress.batch = progress.epoch + 1, 0
                yield progress.step
                if progress.step == last:
                    return

    def _skip_frozen_layers(self) -> None:
        """Start each forward pass from the cached output of the frozen layers, where the cache fits and pays."""
        plan = self.plan
        if plan.prefixes is None or plan.frozen_layers == 0:
            return
        if plan.params.augmentations or plan.params.word_dropout > 0:
            self._record_prefix_cache("not used: augmentation changes the examples in every epoch")
            return
        if plan.candidate.stack.parallel:
            self._record_prefix_cache("not used: the parts of its layers are in several lists")
            return
        started = time.perf_counter()
        frozen = self._setup.frozen
        forward = PartialForward(self.model, plan.candidate.stack, plan.frozen_layers, frozen, self.execution)
        splits = [features for features in (plan.train, plan.validation) if features is not None]
        epochs = plan.rung_steps()[-1] / plan.steps_per_epoch
        # The model's check depends on whether there is dropout, not on its probability, which each trial samples.
        weights = f"{plan.candidate.digest}{' 4bit' if plan.params.is_quantized else ''}"
        model = (weights, plan.params.dropout and "some")
        splits, verdict = plan.prefixes.attach(forward, model, splits, epochs, plan.stop)
        self._train, self._validation = splits[0], splits[1] if len(splits) > 1 else None
        self._partial_forward = forward
        self._record_prefix_cache(verdict)
        self.seconds_load += time.perf_counter() - started

    def _record_prefix_cache(self, verdict: str) -> None:
        self._accumulation.execution = replace(self.execution, prefix_cache=verdict)

    def _fit_memory(self) -> None:
        """Find a micro-batch that fits in memory before the first step."""
        plan = self.plan
        if plan.micro_batches is None:
            return
        started = time.perf_counter()
        plan.micro_batches.fit(self._accumulation, self._train, plan.candidate, plan.frozen_layers, plan.params)
        self.seconds_load += time.perf_counter() - started

    def _finalize_model(self) -> None:
        """Make the trained model a plain one: no layer skipped, full embeddings, adapters merged."""
        if self._partial_forward is not None:
            self._partial_forward.remove()
        self.adapter = self._setup.finalize(self.progress.decay)

    def _epoch_features(self, epoch: int) -> Features:
        """Return the features that an epoch trains on: with word dropout, other words are hidden in each."""
        plan, mask = self.plan, self._setup.mask_token
        if mask is None:
            return self._train
        special = plan.candidate.processor.all_special_ids
        return drop_words(self._train, plan.params.word_dropout, mask, special, plan.seed, epoch)

    def _train_step(self, features: Features, rows: Indices) -> None:
        started = time.perf_counter()
        loss = self._accumulation.gradient(features, rows)
        nn.utils.clip_grad_norm_(self._trainable, self.plan.params.max_grad_norm, foreach=True)
        if self._setup.embedding is not None:
            self.progress.decay *= decay_factor(self._optimizer, self._setup.embedding.weight)
        self._optimizer.step()
        self._scheduler.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.loss_count += len(rows)
        self._pending_losses.append(loss)
        self.progress.seconds_train += time.perf_counter() - started
        if len(self._pending_losses) >= self.execution.steps_ahead:
            self._read_losses()

    def _read_losses(self) -> None:
        """Wait for the losses of the last steps and add them up. Raises `Diverged` where one is not finite."""
        if not self._pending_losses:
            return
        started = time.perf_counter()
        losses = torch.stack(self._pending_losses).tolist()
        self._pending_losses.clear()
        self.progress.seconds_train += time.perf_counter() - started
        for step, loss in enumerate(losses, self.progress.step - len(losses) + 1):
            if not math.isfinite(loss):
                raise Diverged(f"the loss became {loss} at step {step}")
        self.progress.loss_sum += sum(losses)

    def _report(self) -> Report:
        plan, progress = self.plan, self.progress
        self._read_losses()
        metrics: dict[str, float] = {}
        value = math.nan
        if self._validation is not None:
            started = time.perf_counter()
            metrics = self._evaluate(self._validation).metrics
            value = metrics[plan.scorer.name]
            progress.seconds_evaluate += time.perf_counter() - started
        progress.rung += 1
        train_loss = progress.loss_sum / max(progress.loss_count, 1)
        progress.loss_sum, progress.loss_count = 0.0, 0
        report = Report(
            step=progress.rung,
            epoch=progress.step / plan.steps_per_epoch,
            value=value,
            metrics=metrics,
            train_loss=train_loss,
            seconds=self.seconds,
            peak_memory_mb=_peak_memory_mb(self.execution.device),
        )
        progress.reports.append(report.model_dump())
        return report

    def _evaluate(self, validation: Features) -> Evaluation:
        """Evaluate a rung. A stop request during it saves the state before the evaluation and raises `Stopped`."""
        plan = self.plan
        try:
            return evaluate(self.model, validation, plan.task, plan.scorer, self.execution, quick=True, stop=plan.stop)
        except InterruptedError:
            train_mode(self.model, self._setup.frozen)
            self.save()
            raise Stopped from None

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent so far in each phase: load, train, evaluate, checkpoint."""
        progress = self.progress
        return {
            "load": round(self.seconds_load, 3),
            "train": round(progress.seconds_train, 3),
            "evaluate": round(progress.seconds_evaluate, 3),
            "checkpoint": round(progress.seconds_checkpoint, 3),
        }

    @property
    def outcome(self) -> Report:
        """The report of the rung whose value and model are the run's: the best one with a patience, else the last."""
        return Report(**self.progress.reports[self._outcome_rung() - 1])

    @property
    def _patience(self) -> int | None:
        return self.plan.params.early_stopping_patience if self.plan.validation is not None else None

    @property
    def _values(self) -> list[float]:
        return [report["value"] for report in self.progress.reports]

    def _outcome_rung(self) -> int:
        return outcome_rung(self._values, self.plan.scorer.direction, self._patience)

    def _should_stop_early(self) -> bool:
        return should_stop_early(self._values, self.plan.scorer.direction, self._patience)

    def _keep_best(self) -> None:
        """Copy the trained tensors to the host where this rung is the best and a patience is set."""
        if self._patience is None or self._outcome_rung() != self.progress.rung:
            return
        train_mode(self.model, self._setup.frozen)  # the statistics of BatchNorm layers are kept with the weights
        self._best.update({name: t.detach().to("cpu", copy=True) for name, t in trained_tensors(self.model).items()})
        self.progress.best_decay = self.progress.decay

    def _restore_best(self) -> None:
        """Make the model that of the best rung, where a patience is set."""
        if self._patience is None or self._outcome_rung() == self.progress.rung:
            return
        train_mode(self.model, self._setup.frozen)
        with torch.no_grad():
            for name, tensor in trained_tensors(self.model).items():
                tensor.copy_(self._best[name])
        self.model.eval()
        self.progress.decay = self.progress.best_decay

    def _save_if_due(self) -> None:
        """Save when a checkpoint is due; when a stop was requested, save and raise `Stopped`."""
        if self.plan.stop.is_set():
            self.save()
            raise Stopped
        if self._timer.is_due():
            self.save()

    def save(self) -> Path:
        """Write a checkpoint and return its path. Raises `Diverged` where a loss is not finite, `OSError`."""
        self._read_losses()
        started = time.perf_counter()
        path = save_checkpoint(
            self.plan.folder,
            self.plan.study,
            self.plan.attempt,
            self.model,
            self._optimizer,
            self._scheduler,
            self.progress,
            self._best,
        )
        self.progress.seconds_checkpoint += time.perf_counter() - started
        self.plan.on_checkpoint(path)
        self._timer.saved(time.perf_counter() - started)
        return path


def _training_task(plan: TrainingPlan, model: nn.Module) -> Task:
    """Return the task whose loss is trained. Evaluation stays unweighted, so that losses of trials compare."""
    if plan.params.class_weights != "balanced":
        return plan.task
    config: Any = model.config
    return plan.task.with_class_weights(plan.train.all_labels(), config.num_labels)


def _training_features(plan: TrainingPlan) -> Features:
    if not plan.params.augmentations:
        return plan.train
    return plan.train.with_transform(lambda batch: plan.task.augment(batch, plan.params.augmentations))


def _peak_memory_mb(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
