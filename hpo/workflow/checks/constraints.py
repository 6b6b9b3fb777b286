"""Keeping to `constraints`: candidates that do not are dropped before they cost anything, and results are checked."""

from hpo.config.constraints import Footprint
from hpo.errors import ModelError
from hpo.tasks.base import Task
from hpo.training.models.footprint import footprint_from_config, measure_footprint
from hpo.workflow.context import StudyContext


def apply_constraints(context: StudyContext) -> list[str]:
    """Drop the candidates of `context` that break the study's constraints; returns what to tell of each.

    First by their configs, without reading a weight, then by the time and memory of one answer, on the device of
    `context`. Raises `ModelError` where none is left.
    """
    if not context.config.constraints.are_set:
        return []
    _drop(context, {label: footprint for label in context.config.labels if (footprint := _foreseen(context, label))})
    if context.config.constraints.need_inference:
        _drop(context, {label: _measured(context, label) for label in context.config.labels})
    return [f"{model.label} is dropped: {model.dropped}" for model in context.config.models if model.dropped]


def _foreseen(context: StudyContext, label: str) -> Footprint | None:
    task = context.task
    if type(task).build_model is not Task.build_model:
        return None  # a model of the user's own, which no config describes
    return footprint_from_config(context.config.model_ref(label), task.auto_class, task.head_config(context.data))


def _measured(context: StudyContext, label: str) -> Footprint:
    """Of a copy with a fresh head: the candidate itself stays where it is."""
    model = context.candidates[label].build(context.config.seed)
    return measure_footprint(model, context.features("validation", label), context.task, context.execution.device)


def _drop(context: StudyContext, footprints: dict[str, Footprint]) -> None:
    broken = {label: context.config.constraints.violations(footprint) for label, footprint in footprints.items()}
    context.config = context.config.drop_models({label: why for label, why in broken.items() if why})
    if not context.config.labels:
        told = "\n  ".join(f"{model.label}: {model.dropped}" for model in context.config.models)
        raise ModelError(
            f"constraints: no model is left.\n  {told}\nAllow more under `constraints`, or name smaller models."
        )
