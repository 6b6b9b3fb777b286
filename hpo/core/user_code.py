"""A user's own code: the one class of a Python file that a study names, and entry points of installed packages.

A file is imported once for each content of it, under a name that no other module has.
"""

import hashlib
import importlib.util
import inspect
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from hpo.errors import ConfigError, did_you_mean

Class = TypeVar("Class")


def is_file(reference: str) -> bool:
    """Return whether `reference` is a Python file, `file.py` or `file.py:ClassName`, and not the name of something."""
    return split_reference(reference)[0].suffix == ".py"


def split_reference(reference: str) -> tuple[Path, str | None]:
    """Split `file.py:ClassName` into the file and the class; None where no class is named."""
    file, colon, name = reference.rpartition(":")
    return (Path(file), name) if colon and file.endswith(".py") else (Path(reference), None)


def resolve(reference: str, folder: Path) -> str:
    """Return `reference` with its file's absolute path, taken from `folder`."""
    file, name = split_reference(reference)
    path = str((folder / file.expanduser()).resolve())
    return path if name is None else f"{path}:{name}"


def load_class(reference: str, base: type[Class], key: str) -> type[Class]:
    """Import the class that a user's file defines: the one named, else the only subclass of `base` in it.

    Raises `ConfigError` that begins with `key`, the place in the study file, where the file is missing or broken or
    does not define such a class.
    """
    path, name = split_reference(reference)
    module = _import_file(path, key)
    title = f"{base.__module__.split('.')[0]}.{base.__name__}"
    defined = {
        found: value
        for found, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
    }
    if name is not None:
        if name not in defined:
            known = f" It defines: {', '.join(defined)}." if defined else ""
            raise ConfigError(f"{key}: {path} defines no {title} '{name}'.{did_you_mean(name, defined)}{known}")
        return defined[name]
    if len(defined) != 1:
        hint = f" Name one: {path.name}:{next(iter(defined))}." if defined else ""
        raise ConfigError(f"{key}: {path} defines {len(defined)} subclasses of {title}: one is needed.{hint}")
    return next(iter(defined.values()))


def create(kind: Any, key: str) -> Any:
    """Return an instance of a user's class, made without arguments. Raises `ConfigError`."""
    try:
        return kind()
    except Exception as error:  # whatever a user's code raises
        where = inspect.getfile(kind)
        raise ConfigError(
            f"{key}: {kind.__name__} of {where} cannot be created: {type(error).__name__}: {error}"
        ) from error


def source_digest(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _import_file(path: Path, key: str) -> ModuleType:
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.absolute().parent.glob("*.py")])
        raise ConfigError(f"{key}: there is no file {path.absolute()}.{near}")
    identity = hashlib.sha256(f"{path.resolve()} {source_digest(path)}".encode()).hexdigest()[:12]
    name = f"hpo_user_{path.stem}_{identity}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        del sys.modules[name]
        raise ConfigError(f"{key}: {path} cannot be imported: {type(error).__name__}: {error}") from error
    except BaseException:
        del sys.modules[name]
        raise
    return module


def plugin_names(group: str) -> list[str]:
    """Return the names that installed packages register in an entry point group."""
    return sorted(entry_points(group=group).names)


def load_plugin(group: str, name: str, key: str) -> Any:
    """Import what a package registers under `name` in an entry point group; None where none does.

    Raises `ConfigError` naming the package where it cannot be imported.
    """
    found = next(iter(entry_points(group=group, name=name)), None)
    if found is None:
        return None
    try:
        return found.load()
    except Exception as error:  # whatever the package raises
        package = found.dist.name if found.dist else "an unknown package"
        raise ConfigError(
            f"{key}: '{name}' of {package} ({found.value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error
