"""Objects that a user passes to `hpo.run`: a sampler, a pruner, callbacks. They reach the workers that it starts.

They travel pickled inside each worker's specification, through the backend's own channel, and are in no database. The
study's configuration records their names, so that a worker started by hand reports what it lacks.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cloudpickle
import optuna

from hpo.config.study import StudyConfig
from hpo.config.user_code import OBJECT, create, load_class
from hpo.errors import ConfigError, StudyError
from hpo.workflow.callbacks import Callback


@dataclass(frozen=True)
class UserObjects:
    """The objects of a study, where they are not named in its file."""

    sampler: optuna.samplers.BaseSampler | None = None
    pruner: optuna.pruners.BasePruner | None = None
    callbacks: tuple[Callback, ...] = ()

    @classmethod
    def of(cls, sampler: Any = None, pruner: Any = None, callbacks: Sequence[Any] = ()) -> "UserObjects":
        """Check the types of given objects. Raises `ConfigError`."""
        _check_type("sampler", sampler, optuna.samplers.BaseSampler, "an instance of an Optuna sampler")
        _check_type("pruner", pruner, optuna.pruners.BasePruner, "an instance of an Optuna pruner")
        for callback in callbacks:
            _check_type("callbacks", callback, Callback, "instances of hpo.Callback")
        return cls(sampler, pruner, tuple(callbacks))

    def recorded_in(self, config: StudyConfig) -> StudyConfig:
        """Return the study with the names of the objects where a file would name others."""
        changed: dict[str, Any] = {}
        if self.sampler is not None:
            changed["sampler"] = {"name": _name(self.sampler)}
        if self.pruner is not None:
            changed["pruner"] = {"name": _name(self.pruner)}
        if self.callbacks:
            changed["callbacks"] = (*config.callbacks, *map(_name, self.callbacks))
        return config.model_copy(update=changed)

    def pickled(self) -> str | None:
        """Return the objects as text; None where there are none. Raises `ConfigError` for what cannot be pickled."""
        given = {"sampler": self.sampler, "pruner": self.pruner, "callbacks": self.callbacks}
        if not any(given.values()):
            return None
        for key, value in given.items():
            _pickle(key, value)
        return base64.b64encode(_pickle("objects", self)).decode()

    @classmethod
    def received(cls, pickled: str | None) -> "UserObjects":
        """Read the objects in a worker's specification; the sampler gets random numbers of its own.

        Raises `StudyError` where this process cannot import what they need.
        """
        if pickled is None:
            return cls()
        try:
            found = cloudpickle.loads(base64.b64decode(pickled))
        except Exception as error:  # whatever importing a user's module raises
            raise StudyError(
                f"The objects passed to hpo.run cannot be read by a worker: {type(error).__name__}: {error}. Their "
                "modules must be importable there: install them, or add their folder to PYTHONPATH."
            ) from error
        assert isinstance(found, cls)
        if found.sampler is not None:
            found.sampler.reseed_rng()  # with one seed, two workers would sample the same trials
        return found


def load_callbacks(config: StudyConfig, objects: UserObjects) -> tuple[Callback, ...]:
    """Return new instances of the callbacks that a study names, then those given as objects. Raises `ConfigError`."""
    named = [reference for reference in config.callbacks if not reference.startswith(OBJECT)]
    return (
        *(create(load_class(reference, Callback, "callbacks"), "callbacks") for reference in named),
        *objects.callbacks,
    )


def missing_callbacks(config: StudyConfig, objects: UserObjects) -> list[str]:
    """Return the names of callbacks that were passed to `hpo.run` and are not among `objects`."""
    names = [name.removeprefix(OBJECT) for name in config.callbacks if name.startswith(OBJECT)]
    return names[len(objects.callbacks) :]


def _check_type(key: str, value: Any, kind: type, what: str) -> None:
    if value is None or isinstance(value, kind):
        return
    given = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
    raise ConfigError(f"{key}: pass {what}, not {given}.")


def _name(value: Any) -> str:
    return f"{OBJECT}{type(value).__name__}"


def _pickle(key: str, value: Any) -> bytes:
    try:
        return cloudpickle.dumps(value)
    except Exception as error:  # whatever an object's own pickling raises
        raise ConfigError(
            f"{key}: the object cannot be pickled, which workers in other processes need "
            f"({type(error).__name__}: {error}). Create what cannot be pickled when it is first used."
        ) from error
