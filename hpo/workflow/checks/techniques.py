"""Checks that the task and the models support the techniques in a search space, before anything is trained."""

from typing import Any

from hpo.errors import ConfigError, ModelError, did_you_mean
from hpo.training.batches.word_dropout import mask_token
from hpo.training.models.candidate import Candidate
from hpo.training.models.layers import head_dropouts
from hpo.training.models.quantization import check_quantization
from hpo.workflow.context import StudyContext


def check_techniques(context: StudyContext) -> None:
    """Raise `ConfigError` or `ModelError` for a parameter that the task or a model does not support."""
    _check_frozen_counts(context)
    _check_augmentation(context)
    _check_class_weights(context)
    quantization = context.config.search_space.parameters.get("quantization")
    if quantization is not None and "4bit" in quantization.extremes():
        check_quantization(context.execution.device)
    for candidate in _candidates_with("word_dropout", context):
        try:
            mask_token(candidate.processor)
        except ModelError as error:
            raise ModelError(f"{candidate.ref.label}: {error}") from None
    for candidate in _candidates_with("head_dropout", context):
        if not head_dropouts(candidate.model):
            raise ModelError(
                f"{candidate.ref.label}: head_dropout: its head has no dropout. Leave it out, or sample it for others "
                "only: head_dropout: {…, when: {model: […]}}."
            )


def _candidates_with(name: str, context: StudyContext) -> list[Candidate]:
    """Return the models for which a parameter of the space may be sampled; none where it is always off."""
    parameter = context.config.search_space.parameters.get(name)
    if parameter is None or not any(parameter.extremes()):
        return []
    labels = (parameter.when or {}).get("model", context.config.labels)
    return [context.candidates[str(label)] for label in labels]


def _check_class_weights(context: StudyContext) -> None:
    weights = context.config.search_space.parameters.get("class_weights")
    if weights is not None and "balanced" in weights.extremes() and not context.task.supports_class_weights:
        raise ConfigError(
            f"search_space.class_weights: balanced is for tasks with classes, and {context.task.name} has none."
        )


def _check_frozen_counts(context: StudyContext) -> None:
    parameter = context.config.search_space.parameters.get("frozen_layers")
    if parameter is None:
        return
    layers = {label: context.candidates[label].stack.count for label in context.config.labels}
    most = max(int(value or 0) for value in parameter.extremes())
    too_shallow = [f"{model} has {count}" for model, count in layers.items() if count < most]
    if too_shallow:
        raise ConfigError(
            f"search_space.frozen_layers: up to {most} layers, but {', '.join(too_shallow)}. "
            "Write frozen_layers: {share: [0, 1]} for models of different depth."
        )


def _check_augmentation(context: StudyContext) -> None:
    parameter: Any = context.config.search_space.parameters.get("augmentation")
    written = getattr(parameter, "choices", None) or ([parameter.value] if parameter is not None else [])
    written = [*written, *(trial["augmentation"] for trial in context.config.first_trials if "augmentation" in trial)]
    known = context.task.augmentations
    for name in (name for joined in written for name in str(joined).split("+")):
        if name not in (*known, "none"):
            offered = ", ".join(known) or "none for this task"
            raise ConfigError(f"augmentation: '{name}' is not known.{did_you_mean(name, known)} There are: {offered}.")
