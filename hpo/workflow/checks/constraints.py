"""Keeping to `constraints`: candidates that do not are dropped before they cost anything, and results are checked."""

from hpo.config.constraints import Footprint
from hpo.errors import ModelError
from hpo.training.models.footprint import footprint_of_config, measure_footprint
from hpo.workflow.context import Workbench


def keep_to_constraints(bench: Workbench) -> list[str]:
    """Drop the candidates of `bench` that break the study's constraints; returns what to tell of each.

    First by their configs, without reading a weight, then by the time and memory of one answer, on the device of
    `bench`. Raises `ModelError` where none is left.
    """
    if not bench.config.constraints.any:
        return []
    _drop(bench, {label: footprint for label in bench.config.labels if (footprint := _foreseen(bench, label))})
    if bench.config.constraints.need_an_answer:
        _drop(bench, {label: _measured(bench, label) for label in bench.config.labels})
    return [f"{model.label} is dropped: {model.dropped}" for model in bench.config.models if model.dropped]


def _foreseen(bench: Workbench, label: str) -> Footprint | None:
    task = bench.task
    return footprint_of_config(bench.config.model_ref(label), task.auto_class, task.head(bench.data))


def _measured(bench: Workbench, label: str) -> Footprint:
    """Of a copy with a fresh head: the candidate itself stays where it is."""
    model = bench.candidates[label].build(bench.config.seed)
    return measure_footprint(model, bench.features("validation", label), bench.task, bench.execution.device)


def _drop(bench: Workbench, footprints: dict[str, Footprint]) -> None:
    broken = {label: bench.config.constraints.broken_by(footprint) for label, footprint in footprints.items()}
    bench.config = bench.config.without({label: why for label, why in broken.items() if why})
    if not bench.config.labels:
        told = "\n  ".join(f"{model.label}: {model.dropped}" for model in bench.config.models)
        raise ModelError(
            f"constraints: no model is left.\n  {told}\nAllow more under `constraints`, or name smaller models."
        )
