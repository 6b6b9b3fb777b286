"""Parity with transformers.Trainer: the same weights, batches and schedule give the same losses, step by step.

What Trainer samples in another way is switched off here and tested elsewhere: dropout, the head, the order of batches.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, Trainer, TrainingArguments

from hpo.training.batches.batching import epoch_batches
from hpo.training.batches.features import Features
from hpo.training.fine_tune import FineTuning
from hpo.training.plan import TrainingPlan

STEPS = 50
MATRIX = [
    "bert",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in "roberta distilbert electra modernbert deberta-v2".split()
    ),
    pytest.param("gpt2", marks=pytest.mark.slow),
    pytest.param("llama", marks=pytest.mark.slow),
]


class Rows(Dataset[int]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> int:
        return row


class SameBatches(Trainer):
    """Trainer with our batches, which records the loss of every step."""

    def __init__(self, features: Features, batches: list[Any], **keywords: Any) -> None:
        super().__init__(train_dataset=Rows(len(features)), **keywords)
        self.features, self.batches = features, batches
        self.losses: list[float] = []

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(
            Rows(len(self.features)),
            batch_sampler=[list(map(int, rows)) for rows in self.batches],
            collate_fn=lambda rows: self.features.collate(np.array(rows)),
        )

    def training_step(self, *given: Any, **keywords: Any) -> torch.Tensor:
        loss = super().training_step(*given, **keywords)
        self.losses.append(float(loss))
        return loss


def trainer_losses(model: PreTrainedModel, plan: TrainingPlan, folder: Path) -> list[float]:
    batches: list[Any] = []
    for epoch in range(plan.params.epochs):
        batches += epoch_batches(plan.train.lengths, plan.params.batch_size, plan.seed, epoch)
    trainer = SameBatches(
        plan.train,
        batches,
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            use_cpu=True,
            num_train_epochs=1,  # all of our epochs' batches as one epoch
            per_device_train_batch_size=plan.params.batch_size,
            learning_rate=plan.params.learning_rate,
            weight_decay=plan.params.weight_decay,
            warmup_steps=round(plan.params.warmup_ratio * len(batches)),
            lr_scheduler_type=plan.params.lr_scheduler,
            max_grad_norm=plan.params.max_grad_norm,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            seed=plan.seed,
            remove_unused_columns=False,
        ),
    )
    trainer.train()
    return trainer.losses


def our_losses(run: FineTuning) -> Iterator[float]:
    loss_sum, rows = 0.0, 0
    for _ in run.steps():
        progress = run.progress
        yield (progress.loss_sum - loss_sum) / (progress.loss_count - rows)
        loss_sum, rows = progress.loss_sum, progress.loss_count


@pytest.mark.parametrize("name", MATRIX)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_same_losses_as_trainer(
    name: str, plan: Callable[..., TrainingPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Batches are not cut into parts: the sum over parts differs by rounding, which 50 steps amplify (test_accumulation
    # tests that sum).
    monkeypatch.setattr("hpo.training.batches.batching.PASS_COST", 10**9)
    # 6 rows of 48 in the last batch of each epoch: 7 steps of 8 epochs.
    ours = plan(
        name,
        epochs=8,
        batch_size=7,
        dropout=0.0,
        learning_rate=3e-3,
        lr_scheduler="cosine",
        warmup_ratio=0.13,
        weight_decay=0.1,
    )
    run = FineTuning(ours)
    expected = trainer_losses(ours.candidate.build(ours.seed, 0.0), ours, tmp_path)
    found = list(our_losses(run))
    assert len(found) == len(expected) == math.ceil(48 / 7) * 8 >= STEPS
    assert np.ptp(expected) > 0.1  # it learns: a constant would agree with itself
    np.testing.assert_allclose(found, expected, rtol=1e-4)
