"""From what a user passes to `run`, `check` and `rank` to a `StudyConfig`: a file, a mapping, or a table alone."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.config.load import load_config, parse_override, set_key
from hpo.config.study import DataConfig, StudyConfig
from hpo.data.in_memory import is_table, save_tables
from hpo.data.sources import load_splits
from hpo.tasks.registry import get_task, infer_task, with_metric
from hpo.workflow.init import propose_models

Source = str | os.PathLike[str] | Mapping[str, Any] | StudyConfig
"""A study file, a mapping of the same keys, or a `StudyConfig`. A DataFrame or `Dataset` is accepted as well."""


def configure(source: Source, overrides: Sequence[str] = (), **options: Any) -> StudyConfig:
    """Return the study that `source` describes, with `overrides` and the `options` that are not None applied.

    `overrides` are `key=value` strings; `options` are keys with their values, a dot written as two underscores
    (`budget__max_trials=8`). Of a table alone, the columns and the task are recognized, and models, search space and
    metric are chosen as `hpo init` does. Raises `HpoError`.
    """
    given = [(key.replace("__", "."), value) for key, value in options.items() if value is not None]
    if is_table(source):
        return with_metric(load_config(_from_table(source, [*map(parse_override, overrides), *given])))
    if isinstance(source, Mapping) and "data" in source:
        source = {**source, "data": save_tables(source["data"])}
    return with_metric(load_config(source, [*overrides, *given]))


def _from_table(table: Any, given: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a study of a table alone, as `hpo init` would write it; what is `given` stays as it is."""
    path = str(save_tables(table))
    written: dict[str, Any] = {"data": {"path": path}}
    for key, value in given:
        written = set_key(written, key, value)
    data = DataConfig(**written["data"])
    named = written.get("task")
    task = get_task(named) if named else infer_task(load_splits(data).train, data)
    prepared = task.prepare(data, seed=0)
    chosen = {
        "name": Path(path).name,
        "task": task.name,
        "models": list(propose_models(None, task)[0]) if "models" not in written else (),
        "search_space": task.suggest_space(prepared),
        "metric": task.suggest_metric(prepared)[0],
    }
    return {**chosen, **written}
