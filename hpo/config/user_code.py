"""User code: classes in Python files that a study names, and entry points of installed packages.

A file is imported once for each version of its content, under a unique module name.
"""

import hashlib
import importlib.util
import inspect
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import Any, TypeVar

from hpo.errors import ConfigError, did_you_mean

Class = TypeVar("Class")
USER_MODULE = "hpo_user_"  # the start of the names of modules that are users' files
# The start of the recorded name of an object that was passed to `hpo.run`, from which its workers get it. It is here
# because importing the samplers takes 0.35 s, which would delay the start of the workers.
OBJECT = "python:"


def is_file(reference: str) -> bool:
    """Return whether `reference` is a Python file, `file.py` or `file.py:ClassName`, and not a name."""
    return split_reference(reference)[0].suffix == ".py"


def split_reference(reference: str) -> tuple[Path, str | None]:
    """Split `file.py:ClassName` into the file and the class; None if no class is named."""
    file, colon, name = reference.rpartition(":")
    return (Path(file), name) if colon and file.endswith(".py") else (Path(reference), None)


def resolve(reference: str, folder: Path) -> str:
    """Return `reference` with the absolute path of its file, which is relative to `folder`."""
    file, name = split_reference(reference)
    path = str((folder / file.expanduser()).resolve())
    return path if name is None else f"{path}:{name}"


def load_class(reference: str, base: type[Class], key: str) -> type[Class]:
    """Import a class from a user's file: the named one, or the only subclass of `base` in it.

    Raises `ConfigError` if the file does not exist, cannot be imported or defines no such class. Its message starts
    with `key`, the key in the study file.
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
    """Return an instance of a user's class, created without arguments. Raises `ConfigError`."""
    try:
        return kind()
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        where = inspect.getfile(kind)
        raise ConfigError(
            f"{key}: {kind.__name__} of {where} cannot be created: {type(error).__name__}: {error}"
        ) from error


@contextmanager
def no_exit() -> Iterator[None]:
    """Raise `ConfigError` with file and line where a user's file calls `sys.exit`: a search would end in silence."""
    try:
        yield
    except SystemExit as error:
        frames = [(frame, line) for frame, line in walk_tb(error.__traceback__)]
        own = [found for found in frames if str(found[0].f_globals.get("__name__")).startswith(USER_MODULE)]
        if not own:
            raise
        frame, line = own[-1]
        raise ConfigError(
            f"{frame.f_code.co_filename}, line {line}: {frame.f_code.co_name} ends the process (SystemExit: "
            f"{error.code}). Raise an exception instead."
        ) from error


def copied_reference(reference: str, name: str) -> str:
    """Return the reference of a file's copy called `name`; anything but a file's reference as it is."""
    if not is_file(reference):
        return reference
    kind = split_reference(reference)[1]
    return name if kind is None else f"{name}:{kind}"


def copy_file(reference: str, target: Path) -> None:
    """Copy the Python file of a reference; nothing where it is none."""
    if is_file(reference):
        shutil.copyfile(split_reference(reference)[0], target)


def source_digest(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _import_file(path: Path, key: str) -> ModuleType:
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.absolute().parent.glob("*.py")])
        raise ConfigError(f"{key}: there is no file {path.absolute()}.{near}")
    identity = hashlib.sha256(f"{path.resolve()} {source_digest(path)}".encode()).hexdigest()[:12]
    name = f"{USER_MODULE}{path.stem}_{identity}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(
        spec
    )  # before execution: dataclasses look up their module
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
    """Import the object that a package registers as `name` in an entry point group; return None if none does.

    Raises `ConfigError` that names the package if the object cannot be imported.
    """
    found = next(iter(entry_points(group=group, name=name)), None)
    if found is None:
        return None
    try:
        return found.load()
    except (Exception, SystemExit) as error:  # whatever the package raises
        package = found.dist.name if found.dist else "an unknown package"
        raise ConfigError(
            f"{key}: '{name}' of {package} ({found.value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error
