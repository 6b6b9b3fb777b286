"""Reading of a study's configuration from YAML or a mapping: shorthands, `--set` overrides and relative paths."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hpo.config.space_files import read_space_file
from hpo.config.study import StudyConfig
from hpo.config.user_code import is_file, resolve
from hpo.config.validation import explain
from hpo.config.yaml import parse_yaml, read_yaml
from hpo.errors import ConfigError


def load_config(
    source: str | os.PathLike[str] | Mapping[str, Any] | StudyConfig,
    overrides: Sequence[str | tuple[str, Any]] = (),
) -> StudyConfig:
    """Read a study's configuration from a YAML file or a mapping.

    `overrides` are strings such as `budget.max_trials=8`, whose value is parsed as YAML, or (key, value) pairs.
    A mapping may hold paths, ranges, and scalars and arrays of NumPy, which are read as text, lists and numbers.
    Relative paths of data, models and a metric file are resolved against the file's folder, or for a mapping against
    the current folder. The study's name defaults to that of the file. Raises `ConfigError` that names the key.
    """
    if isinstance(source, StudyConfig | Mapping):
        written = source.to_dict() if isinstance(source, StudyConfig) else _plain(source)
        folder, where = Path.cwd(), ""
    else:
        path = Path(source)
        written, folder, where = read_yaml(path), path.absolute().parent, f"{path}: "
        written.setdefault("name", path.stem)
    try:
        for override in overrides:
            key, value = parse_override(override) if isinstance(override, str) else override
            written = set_key(_expand(written, folder), key, _plain(value))
        return StudyConfig.model_validate(_resolve_paths(_expand(written, folder), folder))
    except ValidationError as error:
        raise ConfigError(f"{where}{explain(error, StudyConfig)}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from None


def _plain(value: Any) -> Any:
    """Return a value of a Python program as YAML would give it: paths as text, ranges and arrays as lists."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(inner) for inner in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not hasattr(value, "tolist"):
        return value
    # NumPy's, pandas' or torch's. The shortest digits of the own precision: float32's 1e-3 is no 0.0010000000474974513.
    if getattr(value, "ndim", None) == 0 and getattr(getattr(value, "dtype", None), "kind", "") == "f":
        return float(str(value))
    # A list of an array's scalars keeps their precision; `tolist` of a scalar is Python's own number.
    return value.tolist() if getattr(value, "ndim", None) == 0 else [_plain(inner) for inner in value]


def _expand(written: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Expand shorthands: data given as a path, a search space given as a name or omitted."""
    full = {"search_space": "text-encoders", **written}
    if isinstance(full.get("data"), str):
        full["data"] = {"path": full["data"]}
    if isinstance(full["search_space"], str):
        full["search_space"] = read_space_file(full["search_space"], folder)
    space = full["search_space"]
    if isinstance(space, Mapping) and "first_trials" in space:
        parameters = {name: written for name, written in space.items() if name != "first_trials"}
        full = {"portfolio": space["first_trials"], **full, "search_space": parameters}
    return full


def _resolve_paths(written: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make paths absolute. A name that is no file or folder here may be a hub id, and is kept."""
    resolved = dict(written)
    data, models = resolved.get("data"), resolved.get("models")
    if isinstance(data, Mapping):
        resolved["data"] = _local_paths(data, folder, "path")
    if isinstance(models, str | Mapping):
        models = [models]
    if isinstance(models, list | tuple):
        refs = [{"name": ref} if isinstance(ref, str) else ref for ref in models]
        resolved["models"] = [_local_paths(ref, folder, "name", "processor") for ref in refs]
    checkpoints = resolved.get("checkpoints")
    if isinstance(checkpoints, str) and "://" not in checkpoints:
        resolved["checkpoints"] = str((folder / Path(checkpoints).expanduser()).resolve())
    for key in ("task", "metric"):
        if isinstance(resolved.get(key), str) and is_file(resolved[key]):
            resolved[key] = resolve(resolved[key], folder)
    callbacks = resolved.get("callbacks")
    if isinstance(callbacks, str):
        callbacks = [callbacks]
    if isinstance(callbacks, list | tuple):
        resolved["callbacks"] = [resolve(c, folder) if isinstance(c, str) and is_file(c) else c for c in callbacks]
    return resolved


def _local_paths(written: Any, folder: Path, *keys: str) -> Any:
    if not isinstance(written, Mapping):
        return written
    return {**written, **{key: _local(written[key], folder) for key in keys if isinstance(written.get(key), str)}}


def _local(name: str, folder: Path) -> str:
    path = folder / Path(name).expanduser()
    spelled_as_path = name.startswith((".", "/", "~"))
    return str(path.resolve()) if name and (spelled_as_path or path.exists()) else name


def parse_override(override: str) -> tuple[str, Any]:
    """Return the key and the value of `key=value`; the value is parsed as YAML. Raises `ConfigError`."""
    key, sign, value = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set {override}: write key=value, for example --set budget.max_trials=8.")
    return key, parse_yaml(f"value: {value}", f"--set {override}")["value"]


def set_key(written: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a copy of `written` with the value at a dotted key replaced; the nested mappings are copied, too."""
    first, dot, rest = key.partition(".")
    if not dot:
        return {**written, first: value}
    inner = written.get(first)
    if inner is not None and not isinstance(inner, Mapping):
        raise ConfigError(f"--set {key}: '{first}' is a single value, so it has no key '{rest}'.")
    return {**written, first: set_key(inner or {}, rest, value)}
