"""What `--set key=value` changes in a study."""

from collections.abc import Mapping
from typing import Any

from hpo.config.yaml import parse_yaml
from hpo.errors import ConfigError


def parse_override(override: str) -> tuple[str, Any]:
    """The key and the value of `key=value`, read as YAML. Raises `ConfigError`."""
    key, sign, value = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set {override}: write key=value, for example --set budget.max_trials=8.")
    return key, parse_yaml(f"value: {value}", f"--set {override}")["value"]


def set_key(written: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """`written` with the value at a dotted key replaced; what is on the way there is copied, not changed."""
    first, dot, rest = key.partition(".")
    if not dot:
        return {**written, first: value}
    inner = written.get(first)
    if inner is not None and not isinstance(inner, Mapping):
        raise ConfigError(f"--set: '{first}' holds a value, so there is no {key}.")
    return {**written, first: set_key(inner or {}, rest, value)}
