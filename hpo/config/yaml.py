"""Strict reading and writing of YAML.

YAML 1.2 by ruamel.yaml, in which `1e-5` is a number and `no` a string. Duplicate keys and tags are errors, which name
the line. Loading is safe: it never creates Python objects.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.errors import ConfigError

MOST_VALUES = 100_000  # of a study file, with its aliases expanded


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping from a file. Raises `ConfigError` that names the file and the line."""
    if path.exists() and not path.is_file():  # reading a pipe would wait for its writer
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise ConfigError(f"{path.absolute()} is {kind}, not a YAML file.")
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"There is no file {path.absolute()}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Parse a YAML mapping; `where` names its source in errors. Raises `ConfigError`."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        loaded = YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        problem = str(error.problem).split(" with value")[0]
        raise ConfigError(f"{where}, line {line}: {problem}. Write each key once.") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else "?"
        raise ConfigError(f"{where}, line {line}: not valid YAML: {error.problem or error.context}.") from None
    except (YAMLError, ValueError) as error:  # a character that YAML forbids; a date such as 2026-13-45
        raise ConfigError(f"{where}: not valid YAML: {str(error).splitlines()[0].rstrip('.')}.") from None
    except RecursionError:
        raise ConfigError(f"{where}: not valid YAML: its brackets are nested too deeply.") from None
    _check_size(loaded, where)
    if not isinstance(loaded, dict):
        found = "nothing" if loaded is None else type(loaded).__name__
        raise ConfigError(f"{where}: expected `key: value` lines, found {found}.")
    return loaded


def _check_size(loaded: Any, where: str) -> None:
    """Raise `ConfigError` where aliases (`*name`) make a short file expand to very many values, or contain itself.

    Ten lines of ten aliases each are ten billion values, on whose validation the process would hang.
    """
    sizes: dict[int, int] = {}

    def size(value: Any) -> int:
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in sizes:
            sizes[id(value)] = MOST_VALUES + 1  # until it is known: a value that contains itself has no size
            inner = value.values() if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(map(size, inner))
        return sizes[id(value)]

    if size(loaded) > MOST_VALUES:
        raise ConfigError(
            f"{where}: its aliases (*name) expand to more than {MOST_VALUES:,} values. Write them out, without aliases."
        )


def to_yaml(values: Mapping[str, Any]) -> str:
    """Return a mapping of plain values as block-style YAML, in the order of its keys."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 110
    stream = io.StringIO()
    yaml.dump(dict(values), stream)
    return stream.getvalue()


def inline(value: str | Sequence[str]) -> str:
    """Return a string, or a list of strings, as YAML on one line, quoted only where necessary.

    >>> inline("label"), inline("1e-5"), inline(["a: b", "c"])
    ('label', '"1e-5"', '["a: b", c]')
    """
    if not isinstance(value, str):
        return f"[{', '.join(map(inline, value))}]"
    try:
        plain = parse_yaml(f"key: [{value}]", "") == {"key": [value]}
    except ConfigError:
        plain = False
    return value if plain else json.dumps(value, ensure_ascii=not value.isprintable())
