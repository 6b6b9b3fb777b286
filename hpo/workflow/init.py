"""`hpo init`: inspects the data and writes a commented study file that runs as it is."""

import os
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hpo.config.space_files import ready_made_spaces
from hpo.config.study import DataConfig
from hpo.config.user_code import is_file
from hpo.config.yaml import inline
from hpo.core.assets import asset_folder
from hpo.core.paths import folder_name
from hpo.data.sources import load_splits, read_once
from hpo.errors import ConfigError, DataError, did_you_mean
from hpo.reporting.console import console
from hpo.tasks.base import ENCODERS, Task
from hpo.tasks.registry import get_task, infer_task
from hpo.tasks.task_data import TaskData
from hpo.workflow.flags import as_flags

READING = {"encoding", "header", "drop_empty", "label_delimiter", "train", "validation", "test"}

TEMPLATE = """\
# Written by `hpo init`. It runs as it is:
#
#   hpo check {file}    # what it will do, and how long that takes
#   hpo run {file}      # the search, the winner and the final model
#
# Relative paths start at this file's folder.

task: {task}

{found}data:
  path: {path}
{inputs}  label: {label}
{group}{reading}  validation_size: 0.15   # share of train, where the data has no validation split of its own
  test_size: 0.15         # the same for test, which is touched once, at the end

# The candidates: hub ids or local folders.
{remark}models:
{models}
# What is searched: {{low: …, high: …}} is a range, [a, b] are choices, a single value is fixed, and what is left out
# has its default.
search_space:
{space}
{first_trials}
{metrics}{reason}metric: {metric}

budget:
  max_trials: 24     # complete, pruned and failed ones; --trials N sets another number
  # max_hours: 2     # of running, the confirmation and the final model included

# The best `top` configurations are trained again on `seeds` fresh seeds each, and the best mean wins.
confirm: {{top: 3, seeds: 2}}

# The winner is trained on train + validation and measured once on test; `none` keeps the validated checkpoint.
refit: train+validation

devices: auto        # one worker for each GPU; on a CPU one for every 4 cores
seed: 0
"""


def write_study_file(
    data: str,
    models: Sequence[str] = (),
    size: str | None = None,
    output: Path | None = None,
    text: Sequence[str] = (),
    label: Sequence[str] = (),
    task: str | None = None,
    group: str | None = None,
    space: str | None = None,
    reading: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Write a study file for `data` and return its path.

    `models` are the candidates; without any, well-known ones of `size` are proposed. `text` and `label` name columns
    that are not recognized, `task` the task, or a Python file that defines one. `group` is the column whose values no
    two splits may share, `space` a ready-made search space, `reading` other keys of `data` (`encoding`, `drop_empty`,
    `train`, …), which are written to the file. Raises `DataError`, and `ConfigError` where the file exists or an option
    is invalid.
    """
    local = Path(data).expanduser()
    name = folder_name(local.resolve().stem if local.exists() else data)
    target = output or Path("studies") / f"{name}.yaml"
    if target.exists():
        raise ConfigError(f"{target} exists already. Give another name with --output, or delete it.")
    _check_space(space)
    columns = {"text": tuple(text) if len(text) > 1 else next(iter(text), None), "label": tuple(label) or None}
    given = {key: value for key, value in reading.items() if value is not None}
    source = DataConfig(path=str(local.resolve()) if local.exists() else data, group=group, **columns, **given)
    try:
        with read_once():
            meant = get_task(task) if task is not None else infer_task(load_splits(source).train, source)
            prepared = meant.prepare(source, seed=0)
    except DataError as error:  # there is no study file yet in which to name a column
        raise DataError(as_flags(str(error))) from error
    chosen, remark = (tuple(map(_given_model, models)), "") if models else propose_models(size, meant)
    named = _relative(task, target.parent) if task is not None and is_file(task) else meant.name
    text = _fill(prepared, source, data, chosen, remark, target, meant, named, space)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{target.absolute()} cannot be written: {error.strerror}. Name another file with --output."
        ) from error
    for line in prepared.summary:
        console.note(line)
    return target


def _fill(
    data: TaskData,
    source: DataConfig,
    path: str,
    models: Sequence[str],
    remark: str,
    target: Path,
    task: Task,
    task_name: str,
    space: str | None,
) -> str:
    inputs = {role: inline(data.columns[role]) for role in ("image", "audio") if role in data.columns}
    texts = [column for role, column in data.columns.items() if role not in ("label", *inputs)]
    if texts:
        inputs["text"] = inline(texts if len(texts) > 1 else texts[0])
    metric, reason = task.suggest_metric(data)
    offered = ", ".join(task.metric_names)
    file = ready_made_spaces()[space or task.suggest_space(data)]
    written, _, defaults = file.read_text(encoding="utf-8").partition("\n\n")  # its first trials stand last
    return TEMPLATE.format(
        file=shlex.quote(str(target)),
        task=inline(task_name),
        path=inline(_relative(path, target.parent)),
        inputs="".join(f"  {role}: {column}\n" for role, column in inputs.items()),
        label=inline(list(source.label) if isinstance(source.label, tuple) else data.columns.get("label", ""))
        or "null",
        group=f"  group: {inline(source.group)}   # no two splits share a value of it\n" if source.group else "",
        reading="".join(
            f"  {key}: {str(value).lower() if isinstance(value, bool) else inline(value)}\n"
            for key, value in source.model_dump(include=READING, exclude_defaults=True).items()
        ),
        found=_comment(*data.summary, *data.notes),
        metrics=_comment(f"Optimized on validation: {offered}, or a Python file of your own with an evaluate.Metric."),
        models="".join(f"  - {inline(_relative(model, target.parent))}\n" for model in models),
        remark=_comment(remark),
        metric=metric,
        first_trials=defaults,
        reason=_comment(reason),
        space=textwrap.indent(f"{written}\n", "  "),
    )


def _check_space(space: str | None) -> None:
    known = ready_made_spaces()
    if space is not None and space not in known:
        raise ConfigError(f"--space {space}: no such space.{did_you_mean(space, known)} Known: {', '.join(known)}.")


def propose_models(size: str | None, task: Task) -> tuple[tuple[str, ...], str]:
    """Return well-known candidates of a size (small, base, large; None: by the hardware), and a remark.

    The bundled models are proposed only when the hub is unreachable and none of the others is in its cache.
    """
    from hpo.training.execution import available_devices
    from hpo.training.models.hub import hub_is_unreachable

    if size is not None and size not in task.hub_models:
        raise ConfigError(f"--size {size}: choose one of {', '.join(task.hub_models)}.")
    size = size or ("base" if available_devices()[0] != "cpu" else "small")
    wanted = task.hub_models[size]
    cached = tuple(model for model in wanted if is_cached(model))
    if cached == wanted or not hub_is_unreachable():
        return wanted, f"These are of size {size}; `hpo init --size` offers {', '.join(task.hub_models)}."
    if cached:
        return cached, "The hub is unreachable; these are in its cache."
    bundled = tuple(str(folder.parent) for folder in sorted(asset_folder("demo_models").glob("*/config.json")))
    if bundled and task.hub_models == ENCODERS:
        return bundled, (
            "The hub is unreachable, so these are hpo's own small demonstration models: fine to try it, weak on real "
            f"data. With the hub, use {' and '.join(wanted)}."
        )
    raise ConfigError("The hub is unreachable and none of its models is cached. Name a local one: --model FOLDER.")


def is_cached(model: str) -> bool:
    """Return whether a hub model's config is in the hub's cache on this disk."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, "config.json"), str)


def _given_model(model: str) -> str:
    if model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
        raise ConfigError(f"--model {model}: there is no folder {Path(model).expanduser().absolute()}.")
    return model


def _relative(path: str, folder: Path) -> str:
    """Return a local path, relative to `folder` or absolute, whichever is shorter; anything else as it is."""
    local = Path(path).expanduser()
    if not local.exists():
        return path
    return min(os.path.relpath(local.resolve(), folder.resolve()), str(local.resolve()), key=len)


def _comment(*lines: str) -> str:
    """Return each line as a wrapped comment of its own."""
    wrapped = [part for line in lines for part in textwrap.wrap(line, 117, break_on_hyphens=False)]
    return "".join(f"# {part}\n" for part in wrapped)
