"""Prepares a copy of a candidate for one run (`build_model`) and turns it back into a plain model (`finalize`)."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from hpo.training.batches.features import Batch, pop_labels
from hpo.training.batches.word_dropout import mask_token
from hpo.training.cpu.attention import restore_attention, use_cpu_attention
from hpo.training.cpu.dropout import restore_dropout, use_bit_dropout
from hpo.training.cpu.embeddings import TrimmedEmbedding, trim_embedding
from hpo.training.models.layers import find_depths, freeze
from hpo.training.models.lora import AdapterWeights, Lora, batch_norms, quantize_body
from hpo.training.plan import TrainingPlan


@dataclass
class ModelSetup:
    """A model on its device, ready to train, and what was changed in it for training only."""

    model: nn.Module
    frozen: list[nn.Module]  # kept in eval mode while the model trains
    depths: dict[int, int] | None  # of each parameter (`find_depths`), where learning rates depend on depth
    lora: Lora | None
    mask_token: int | None  # replaces the words that word dropout hides
    embedding: TrimmedEmbedding | None

    def finalize(self, decay: float) -> AdapterWeights | None:
        """Make `model` a plain one: full embeddings (`TrimmedEmbedding.expand` with `decay`), adapters merged.

        Returns the adapter's own weights, where there is one.
        """
        restore_dropout(self.model)
        restore_attention(self.model)
        if self.embedding is not None:
            self.embedding.expand(decay)
        return None if self.lora is None else self.lora.merge()


def build_model(plan: TrainingPlan) -> ModelSetup:
    """Build the plan's model: initialize its head from the seed, quantize, move, freeze, add adapters.

    Raises `ModelError` where word dropout finds no token to hide words with.
    """
    params, candidate = plan.params, plan.candidate
    model = candidate.build(plan.seed, params.dropout, params.head_dropout)
    if params.is_quantized:
        quantize_body(model, candidate, plan.execution.torch_dtype)
    model = model.to(plan.execution.device)
    plan.task.configure_model(model, plan.train)
    example = _example(plan, model)
    frozen = freeze(model, candidate.stack, plan.frozen_layers, example)
    lora = None
    if params.peft == "lora":
        lora = Lora(model, candidate, frozen, params)
        frozen += batch_norms(model)
    mask = mask_token(candidate.processor) if params.word_dropout > 0 else None
    embedding = _trim(plan, model, mask)
    if plan.execution.device == "cpu":
        use_bit_dropout(model)
        use_cpu_attention(model)
    depths = find_depths(model, candidate.stack, example) if params.layer_decay < 1 else None
    return ModelSetup(model, frozen, depths, lora, mask, embedding)


def _example(plan: TrainingPlan, model: nn.Module) -> Batch:
    """Return a batch of one training input without its labels, on the plan's device."""
    example = plan.train.collate(np.arange(1))
    pop_labels(model, example)
    return {name: tensor.to(plan.execution.device) for name, tensor in example.items()}


def _trim(plan: TrainingPlan, model: nn.Module, mask: int | None) -> TrimmedEmbedding | None:
    # Adafactor scales a matrix's update by all of its rows, so that none can be left out.
    if plan.params.optimizer != "adamw":
        return None
    splits = [features for features in (plan.train, plan.validation) if features is not None]
    return trim_embedding(model, splits, [] if mask is None else [mask])
