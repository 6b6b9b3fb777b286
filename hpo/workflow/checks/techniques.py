"""Whether the techniques that a search space names suit the task and the models: told before anything is trained."""

from typing import Any

from hpo.errors import ConfigError, ModelError, did_you_mean
from hpo.training.batches.word_dropout import hidden_token
from hpo.training.models.candidate import Candidate
from hpo.training.models.layers import head_dropouts
from hpo.training.models.quantization import check_quantization
from hpo.workflow.context import Workbench


def check_techniques(bench: Workbench) -> None:
    """Raise `ConfigError` or `ModelError` for a parameter that the task, or a model it is sampled for, cannot have."""
    _check_frozen_counts(bench)
    _check_augmentation(bench)
    _check_class_weights(bench)
    quantization = bench.config.search_space.parameters.get("quantization")
    if quantization is not None and "4bit" in quantization.extremes():
        check_quantization(bench.execution.device)
    for candidate in _candidates_with("word_dropout", bench):
        try:
            hidden_token(candidate.processor)
        except ModelError as error:
            raise ModelError(f"{candidate.ref.label}: {error}") from None
    for candidate in _candidates_with("head_dropout", bench):
        if not head_dropouts(candidate.model):
            raise ModelError(
                f"{candidate.ref.label}: head_dropout: its head has no dropout. Leave it out, or sample it for others "
                "alone: head_dropout: {…, when: {model: […]}}."
            )


def _candidates_with(name: str, bench: Workbench) -> list[Candidate]:
    """The models that a parameter of the space, where it is not off throughout, may be sampled for."""
    parameter = bench.config.search_space.parameters.get(name)
    if parameter is None or not any(parameter.extremes()):
        return []
    labels = (parameter.when or {}).get("model", bench.config.labels)
    return [bench.candidates[str(label)] for label in labels]


def _check_class_weights(bench: Workbench) -> None:
    weights = bench.config.search_space.parameters.get("class_weights")
    if weights is not None and "balanced" in weights.extremes() and not bench.task.has_classes:
        raise ConfigError(
            f"search_space.class_weights: balanced is for tasks with classes, and {bench.task.name} has none."
        )


def _check_frozen_counts(bench: Workbench) -> None:
    parameter = bench.config.search_space.parameters.get("frozen_layers")
    if parameter is None:
        return
    layers = {label: bench.candidates[label].stack.count for label in bench.config.labels}
    most = max(int(value or 0) for value in parameter.extremes())
    too_shallow = [f"{model} has {count}" for model, count in layers.items() if count < most]
    if too_shallow:
        raise ConfigError(
            f"search_space.frozen_layers: up to {most} layers, but {', '.join(too_shallow)}. "
            "Write frozen_layers: {share: [0, 1]} for models of different depth."
        )


def _check_augmentation(bench: Workbench) -> None:
    parameter: Any = bench.config.search_space.parameters.get("augmentation")
    written = getattr(parameter, "choices", None) or ([parameter.value] if parameter is not None else [])
    written = [*written, *(trial["augmentation"] for trial in bench.config.first_trials if "augmentation" in trial)]
    known = bench.task.augmentations
    for name in (name for joined in written for name in str(joined).split("+")):
        if name not in (*known, "none"):
            offered = ", ".join(known) or "none for this task"
            raise ConfigError(f"augmentation: '{name}' is not known.{did_you_mean(name, known)} There are: {offered}.")
