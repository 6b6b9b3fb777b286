"""`hpo init`: looks at the data and writes a commented study file that runs as it is."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpo.core.config import DataConfig, ready_made
from hpo.core.errors import ConfigError
from hpo.core.paths import folder_name
from hpo.tasks import get_task
from hpo.tasks.task import TaskData

# Well-known encoders with safetensors weights on the hub, by what a person can afford.
HUB_MODELS = {
    "small": ("sentence-transformers/all-MiniLM-L6-v2", "distilbert/distilbert-base-uncased"),
    "base": ("FacebookAI/roberta-base", "answerdotai/ModernBERT-base", "google-bert/bert-base-uncased"),
    "large": ("FacebookAI/roberta-large", "answerdotai/ModernBERT-large"),
}

TEMPLATE = """\
# {name}: written by `hpo init`; runs as it is with `hpo run {file}`.
# Every key: see "Study files" in the README. What is left out has a default.

task: {task}

data:
  path: {path}
{columns}{splits}
# Rows: {sizes}. Classes: {classes}.
{notes}
# The candidates: hub ids or local folders.{models_note}
models:
{models}
# What is searched: a ready-made space, or your own parameters here (see search_spaces/{space}.yaml).
search_space: {space}

# {metric_note}
metric: {metric}

budget:
  max_trials: {trials}     # complete, pruned and failed ones
  # max_hours: 2       # wall time of running, confirming and the final model included

# The best `top` configurations are trained again on `seeds` fresh seeds each; the best mean wins.
confirm: {{top: 3, seeds: 2}}
# The winner is trained on train + validation, and measured once on test; `none` keeps the validated checkpoint.
refit: train+validation

devices: auto         # one worker per GPU; on a CPU one for every 4 cores
seed: 0
"""


def write_study_file(
    data: str, models: Sequence[str] = (), size: str | None = None, output: Path | None = None, task: str | None = None
) -> Path:
    """Write a study file for `data`, return its path. Raises `DataError`, or `ConfigError` when the file exists."""
    task_name = task or "text-classification"
    local = Path(data).expanduser()
    name = folder_name(local.resolve().stem if local.exists() else data)
    target = output or Path("studies") / f"{name}.yaml"
    if target.exists():
        raise ConfigError(f"{target} exists already. Give another name with --output, or delete it.")
    prepared = get_task(task_name).prepare(DataConfig(path=str(local.resolve()) if local.exists() else data), seed=0)
    chosen, note = (tuple(models), "") if models else propose_models(size)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = TEMPLATE.format(
        name=name,
        file=target,
        task=task_name,
        path=_relative(data, target.parent),
        columns=_columns(prepared),
        splits="",
        sizes=", ".join(f"{rows:,} {split}" for split, rows in prepared.sizes.items()),
        classes=_classes(prepared),
        notes="".join(f"# {line}\n" for line in prepared.notes),
        models="".join(f"  - {_relative(model, target.parent)}\n" for model in chosen),
        models_note=note,
        space="text-encoders",
        metric=_metric(prepared)[0],
        metric_note=_metric(prepared)[1],
        trials=24,
    )
    target.write_text(text, encoding="utf-8")
    return target


def propose_models(size: str | None) -> tuple[tuple[str, ...], str]:
    """Good candidates of a size (small, base, large; None: by the hardware), and a remark.

    The bundled models are proposed only when the hub is out of reach and none of the others is in its cache.
    """
    from hpo.training.model import hub_is_out_of_reach
    from hpo.training.precision import available_devices

    if size is not None and size not in HUB_MODELS:
        raise ConfigError(f"--size {size}: choose one of {', '.join(HUB_MODELS)}.")
    size = size or ("base" if available_devices()[0] != "cpu" else "small")
    wanted = HUB_MODELS[size]
    cached = tuple(model for model in wanted if is_cached(model))
    if not hub_is_out_of_reach() or cached == wanted:
        return wanted, f" These are of size {size}; `hpo init --size` offers {', '.join(HUB_MODELS)}."
    if cached:
        return cached, " The hub is out of reach; these are in its cache."
    bundled = tuple(str(folder.parent) for folder in sorted(ready_made("examples/models").glob("*/config.json")))
    if bundled:
        return bundled, (
            "\\n# The hub is out of reach, so these are hpo's small demonstration models: fine to try it, weak on real"
            f"\\n# data. With the hub, take {', '.join(wanted)}.".replace("\\n", "\n")
        )
    raise ConfigError("The hub is out of reach and none of its models is cached. Name a local one: --model FOLDER.")


def is_cached(model: str) -> bool:
    """Whether a hub model's config is in the hub's cache on this disk."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, "config.json"), str)


def _relative(path: str, folder: Path) -> str:
    """A local path as seen from the study file's folder; anything else as it is."""
    local = Path(path).expanduser()
    return os.path.relpath(local.resolve(), folder.resolve()) if local.exists() else path


def _columns(data: TaskData) -> str:
    text: Any = data.columns["text"]
    if "text_pair" in data.columns:
        text = f"[{text}, {data.columns['text_pair']}]"
    return f"  text: {text}\n  label: {data.columns['label']}\n"


def _classes(data: TaskData) -> str:
    names = [" ".join(name.split()) for name in data.label_names]
    few = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
    return f"{len(names)} ({few})"


def _metric(data: TaskData) -> tuple[str, str]:
    """Accuracy, or macro-F1 where the classes are so uneven that accuracy hides the small ones; with the reason."""
    counts = Counter(data.train["labels"])
    ratio = max(counts.values()) / max(1, min(counts.values()))
    known = "Others: accuracy, f1_macro, f1_micro, f1_weighted, precision, recall, mcc, loss, or ./my_metric.py."
    if ratio >= 3 and len(counts) <= 20:
        return "f1_macro", f"The largest class has {ratio:.0f} times the rows of the smallest. {known}"
    return "accuracy", known
