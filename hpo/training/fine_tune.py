"""The one training loop: it yields a `Report` at each rung. Pruning is leaving the loop.

    run = FineTuning(plan)
    for report in run.reports():
        ...
    run.model

It stops at any optimizer step when `plan.stop` is set (`Stopped` is raised, the state is on disk), and goes on there
when it is started again with the same plan.
"""

import math
import resource
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hpo.config.trial_params import Report
from hpo.errors import Diverged
from hpo.training.accumulation import Accumulation
from hpo.training.batches.batching import epoch_batches
from hpo.training.batches.features import Features, Indices, pop_labels
from hpo.training.batches.word_dropout import drop_words, mask_token
from hpo.training.checkpoints.checkpoint import CheckpointTimer, Progress, load_checkpoint, save_checkpoint
from hpo.training.cpu.attention import restore_attention, use_cpu_attention
from hpo.training.cpu.dropout import restore_dropout, use_bit_dropout
from hpo.training.cpu.embeddings import trim_embedding
from hpo.training.early_stopping import should_stop_early
from hpo.training.evaluate import Evaluation, evaluate
from hpo.training.execution import Execution
from hpo.training.frozen.partial_forward import PartialForward
from hpo.training.models.layers import find_depths, freeze, train_mode
from hpo.training.models.lora import AdapterWeights, Lora, frozen_statistics, quantize_body
from hpo.training.optimizer import build_optimizer, build_scheduler, decay_factor
from hpo.training.plan import TrainingPlan


class Stopped(Exception):
    """The plan's stop flag was set: the state is in the plan's folder, and the same plan goes on from it."""


class FineTuning:
    """One run of a plan: the model, its optimizer, and how far it is. `model` is the trained model afterwards."""

    def __init__(self, plan: TrainingPlan) -> None:
        started = time.perf_counter()
        self.plan = plan
        dropouts = plan.params.dropout, plan.params.head_dropout
        self.model = plan.candidate.build(plan.seed, *dropouts)
        if plan.params.is_quantized:
            quantize_body(self.model, plan.candidate, plan.execution.torch_dtype)
        self.model = self.model.to(plan.execution.device)
        plan.task.configure_model(self.model, plan.train)
        example = plan.train.collate(np.arange(1))
        pop_labels(self.model, example)
        example = {name: tensor.to(plan.execution.device) for name, tensor in example.items()}
        self._frozen = freeze(self.model, plan.candidate.stack, plan.frozen_layers, example)
        self._lora: Lora | None = None
        self.adapter: AdapterWeights | None = None  # of a run with `peft` that is done: the adapter apart
        if plan.params.peft == "lora":
            self._lora = Lora(self.model, plan.candidate, self._frozen, plan.params)
            self._frozen += frozen_statistics(self.model)
        splits = [features for features in (plan.train, plan.validation) if features is not None]
        self._hidden = [mask_token(plan.candidate.processor)] if plan.params.word_dropout > 0 else []
        # Adafactor scales a matrix's update by all of its rows: there none can be left out.
        adam = plan.params.optimizer == "adamw"
        self._rows = trim_embedding(self.model, splits, self._hidden) if adam else None
        if plan.execution.device == "cpu":
            use_bit_dropout(self.model)
            use_cpu_attention(self.model)
        self._trainable = [p for p in self.model.parameters() if p.requires_grad]
        decays = plan.params.layer_decay < 1
        depths = find_depths(self.model, plan.candidate.stack, example) if decays else None
        self._optimizer = build_optimizer(self.model, plan.params, depths)
        total = plan.steps_per_epoch * plan.params.epochs
        self._scheduler = build_scheduler(self._optimizer, plan.params, total)
        torch.manual_seed(plan.seed)
        train_mode(self.model, self._frozen)  # BatchNorm's statistics are of a checkpoint where they are not frozen
        self.progress = load_checkpoint(plan.folder, self.model, self._optimizer, self._scheduler) or Progress()
        self.seconds_load = time.perf_counter() - started
        self._clock = CheckpointTimer(plan.checkpoint_seconds, self._trainable, plan.attempt)
        self._start: PartialForward | None = None
        smoothing = plan.params.label_smoothing
        task = plan.task
        if plan.params.class_weights == "balanced":  # evaluation stays unweighted: losses of trials compare
            config: Any = self.model.config
            task = task.with_class_weights(plan.train.all_labels(), config.num_labels)
        self._accumulation = Accumulation(self.model, task, smoothing, plan.execution)
        self._train, self._validation = plan.train, plan.validation
        if plan.params.augmentations:
            self._train = plan.train.changed(lambda batch: plan.task.augment(batch, plan.params.augmentations))
        self._unread: list[torch.Tensor] = []  # the losses of the last steps, still on the device

    @property
    def execution(self) -> Execution:
        """How the run is carried out: the plan's, and what the run itself found out."""
        return self._accumulation.execution

    def reports(self) -> Generator[Report, None, None]:
        """Train, and yield a report at each rung. Raises `Stopped`, `Diverged` or `OutOfMemory`."""
        rungs = self.plan.rung_steps()
        for _ in self.steps():
            while self.at_rung:
                report = self._report()
                ends = self.progress.rung == len(rungs) or self._should_stop_early()
                if ends:
                    self._make_ordinary()
                yield report
                if ends:
                    return
                train_mode(self.model, self._frozen)

    @property
    def at_rung(self) -> bool:
        """Whether a report is due. With fewer steps in an epoch than rungs, one step ends several of them."""
        rungs = self.plan.rung_steps()
        return self.progress.rung < len(rungs) and self.progress.step == rungs[self.progress.rung]

    def steps(self) -> Generator[int, None, None]:
        """Train, and yield the number of optimizer steps done after each, and at first of a run that goes on."""
        plan, progress = self.plan, self.progress
        last = plan.rung_steps()[-1]
        self._skip_frozen_layers()
        train_mode(self.model, self._frozen)
        self._fit_memory()
        if progress.step:
            yield progress.step  # a run that was stopped in the middle of a rung's evaluation has still to report it
        while progress.step < last:
            batches = epoch_batches(plan.train.lengths, plan.params.batch_size, plan.seed, progress.epoch)
            features = self._augmented(progress.epoch)
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
        """Start each forward pass after the frozen layers, where the machine's cache of their output allows."""
        plan = self.plan
        if plan.prefixes is None or plan.frozen_layers == 0:
            return
        if plan.params.augmentations or self._hidden:
            verdict = "not used: augmentation makes other examples in each epoch"
            self._accumulation.execution = replace(self.execution, prefix_cache=verdict)
            return
        started = time.perf_counter()
        start = PartialForward(self.model, plan.candidate.stack, plan.frozen_layers, self._frozen, self.execution)
        splits = [features for features in (plan.train, plan.validation) if features is not None]
        epochs = plan.rung_steps()[-1] / plan.steps_per_epoch
        # Whether there is dropout matters to the check of a model, not how much: a search samples it anew each time.
        weights = f"{plan.candidate.digest}{' 4bit' if plan.params.is_quantized else ''}"
        model = (weights, plan.params.dropout and "some")
        splits, verdict = plan.prefixes.attach(start, model, splits, epochs, plan.stop)
        self._train, self._validation = splits[0], splits[1] if len(splits) > 1 else None
        self._start = start
        self._accumulation.execution = replace(self.execution, prefix_cache=verdict)
        self.seconds_load += time.perf_counter() - started

    def _fit_memory(self) -> None:
        """Find a micro-batch that fits before the first step needs it."""
        plan = self.plan
        if plan.micro_batches is None:
            return
        started = time.perf_counter()
        plan.micro_batches.fit(self._accumulation, self._train, plan.candidate, plan.frozen_layers, plan.params)
        self.seconds_load += time.perf_counter() - started

    def _make_ordinary(self) -> None:
        """At the end: a model like any other, all of its embeddings trained, adapters merged, no layer skipped."""
        restore_dropout(self.model)
        restore_attention(self.model)
        if self._rows is not None:
            self._rows.expand(self.progress.decay)
        if self._start is not None:
            self._start.remove()
        if self._lora is not None:
            self.adapter = self._lora.merge()

    def _augmented(self, epoch: int) -> Features:
        """What an epoch trains on."""
        plan = self.plan
        if not self._hidden:
            return self._train
        special = plan.candidate.processor.all_special_ids
        return drop_words(self._train, plan.params.word_dropout, self._hidden[0], special, plan.seed, epoch)

    def _train_step(self, features: Features, rows: Indices) -> None:
        started = time.perf_counter()
        loss = self._accumulation.gradient(features, rows)
        nn.utils.clip_grad_norm_(self._trainable, self.plan.params.max_grad_norm, foreach=True)
        if self._rows is not None:
            self.progress.decay *= decay_factor(self._optimizer, self._rows.weight)
        self._optimizer.step()
        self._scheduler.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.loss_count += len(rows)
        self._unread.append(loss)
        self.progress.seconds_train += time.perf_counter() - started
        if len(self._unread) >= self.execution.steps_ahead:
            self._read_losses()

    def _read_losses(self) -> None:
        """Wait for the last steps' losses and add them up. Raises `Diverged` where they are no number."""
        if not self._unread:
            return
        started = time.perf_counter()
        losses = torch.stack(self._unread).tolist()
        self._unread.clear()
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
            found = self._evaluated(self._validation)
            metrics = found.metrics
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

    def _evaluated(self, validation: Features) -> Evaluation:
        """The evaluation of a rung; told to stop in the middle of it, the run goes on from before it."""
        plan = self.plan
        try:
            return evaluate(self.model, validation, plan.task, plan.scorer, self.execution, quick=True, stop=plan.stop)
        except InterruptedError:
            train_mode(self.model, self._frozen)
            self.save()
            raise Stopped from None

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds so far by phase."""
        progress = self.progress
        return {
            "load": round(self.seconds_load, 3),
            "train": round(progress.seconds_train, 3),
            "evaluate": round(progress.seconds_evaluate, 3),
            "checkpoint": round(progress.seconds_checkpoint, 3),
        }

    def _should_stop_early(self) -> bool:
        plan, values = self.plan, [report["value"] for report in self.progress.reports]
        patience = plan.params.early_stopping_patience if plan.validation is not None else None
        return should_stop_early(values, plan.scorer.direction, patience)

    def _save_if_due(self) -> None:
        """Between two steps: save and leave when told to stop, save when the clock says so."""
        if self.plan.stop.is_set():
            self.save()
            raise Stopped
        if self._clock.is_due():
            self.save()

    def save(self) -> Path:
        """Write a checkpoint now. Raises `Diverged` rather than keep a state that leads nowhere."""
        self._read_losses()
        started = time.perf_counter()
        path = save_checkpoint(
            self.plan.folder, self.plan.attempt, self.model, self._optimizer, self._scheduler, self.progress
        )
        self.progress.seconds_checkpoint += time.perf_counter() - started
        self.plan.on_checkpoint(path)
        self._clock.saved(time.perf_counter() - started)
        return path


def _peak_memory_mb(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
