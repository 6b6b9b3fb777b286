"""Applying `constraints` to the candidates: those that exceed them are dropped before anything is trained."""

from dataclasses import replace

from hpo.config.constraints import Footprint
from hpo.errors import ModelError
from hpo.tasks.base import Task
from hpo.training.models.footprint import footprint_from_config, measure_footprint
from hpo.workflow.context import StudyContext


def apply_constraints(context: StudyContext) -> tuple[StudyContext, list[str]]:
    """Drop the candidates of `context` that exceed the study's constraints; return the rest and a note on each dropped.

    Configs are checked first, without reading a weight, then the latency and memory of one inference on the device of
    `context`. Raises `ModelError` when no candidate is left.
    """
    if not context.config.constraints.are_set:
        return context, []
    known = {label: _footprint_from_config(context, label) for label in context.config.labels}
    context = _drop(context, {label: footprint for label, footprint in known.items() if footprint})
    if context.config.constraints.need_inference:
        context = _drop(context, {label: _measure(context, label) for label in context.config.labels})
    return context, [f"{model.label} is dropped: {model.dropped}" for model in context.config.models if model.dropped]


def _footprint_from_config(context: StudyContext, label: str) -> Footprint | None:
    task = context.task
    if type(task).build_model is not Task.build_model:
        return None  # a model of the user's own, which no config describes
    return footprint_from_config(context.config.model_ref(label), task.auto_class, task.head_config(context.data))


def _measure(context: StudyContext, label: str) -> Footprint:
    """Measure a copy with a new head: the candidate itself stays unchanged."""
    model = context.candidates[label].build(context.config.seed)
    return measure_footprint(model, context.features("validation", label), context.task, context.execution.device)


def _drop(context: StudyContext, footprints: dict[str, Footprint]) -> StudyContext:
    violations = {label: context.config.constraints.violations(footprint) for label, footprint in footprints.items()}
    config = context.config.drop_models({label: reason for label, reason in violations.items() if reason})
    if not config.labels:
        reasons = "\n  ".join(f"{model.label}: {model.dropped}" for model in config.models)
        raise ModelError(
            f"constraints: no model is left.\n  {reasons}\nAllow more under `constraints`, or name smaller models."
        )
    return replace(context, config=config)
