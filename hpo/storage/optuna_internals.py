"""The private parts of Optuna that hpo uses: what each is for, and a check at import that each still exists.

A release of Optuna may rename a private part, and an override of a method that is gone is silently ignored: trials
would be created without a budget and written without a lease. So importing this file raises `StorageError` unless
the installed Optuna has every part with the expected signature. No other file uses a private name of Optuna.
"""

import inspect
from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.orm import Session

from hpo.errors import StorageError

# The versions whose private parts were tested; `pyproject.toml` has the same bounds.
WORKING_VERSIONS = "optuna>=5.0,<5.1"


def _unsuitable(missing: str) -> StorageError:
    return StorageError(
        f"hpo uses private parts of Optuna that the installed Optuna {optuna.__version__} does not have: {missing}. "
        f"Install a version that works: pip install '{WORKING_VERSIONS}'"
    )


try:
    from optuna.storages._cached_storage import _CachedStorage  # the cache that Optuna puts around every RDBStorage
    from optuna.storages._rdb import models  # Optuna's tables: budget and lease are checked in the same transactions
    from optuna.study.study import _ThreadLocalStudyAttribute  # holds the trials that `Study.ask` cached
except ImportError as error:
    raise _unsuitable(str(error)) from None

__all__ = [
    "WORKING_VERSIONS",
    "ExtensibleRDBStorage",
    "alembic_folder",
    "cached_trials",
    "clear_cached_trials",
    "models",
    "optuna_storage",
    "study_id",
    "tell_trial",
    "trial_id",
    "uncached_storage",
    "verify_optuna",
]


class _Method(NamedTuple):
    """A method that hpo calls or overrides, with the names of its parameters after `self` or `cls`."""

    owner: type
    name: str
    parameters: str
    purpose: str

    def missing(self) -> str | None:
        expected = f"{self.owner.__name__}.{self.name}({', '.join(self.parameters.split())})"
        found = getattr(self.owner, self.name, None)
        names = [] if found is None else [name for name in inspect.signature(found).parameters if name != "self"]
        return None if found is not None and names == self.parameters.split() else f"{expected}, which {self.purpose}"


class _Attributes(NamedTuple):
    """Attributes of a class, or of its instances, which then are assigned in `__init__`."""

    owner: type
    names: str
    purpose: str

    def missing(self) -> str | None:
        code = getattr(inspect.unwrap(vars(self.owner).get("__init__", object)), "__code__", None)
        assigned = () if code is None else code.co_names
        absent = [name for name in self.names.split() if not hasattr(self.owner, name) and name not in assigned]
        return f"{self.owner.__name__}.{', '.join(absent)}, which {self.purpose}" if absent else None


_QUERIED = "hpo's own queries read or write"
_PARTS: tuple[_Method | _Attributes, ...] = (
    _Attributes(optuna.Study, "_study_id", "is the key of hpo's tables"),
    _Attributes(optuna.Study, "_storage", "reaches the database of a study that Optuna opened"),
    _Attributes(optuna.Study, "_thread_local", "caches the trials of one `Study.ask`"),
    _Attributes(_ThreadLocalStudyAttribute, "cached_all_trials", "is cleared when a worker claims a trial"),
    _Attributes(_ThreadLocalStudyAttribute, "in_optimize_loop", "allows a sampler to stop the study"),
    _Attributes(optuna.Study, "_stop_flag", "is set by a sampler that has sampled everything"),
    _Method(optuna.Study, "_get_trials", "deepcopy states use_cache", "reads the trials without copying them"),
    _Attributes(Trial, "_trial_id", "is the key of leases"),
    _Attributes(FrozenTrial, "_trial_id", "is the key of leases"),
    _Attributes(_CachedStorage, "_backend", "is hpo's storage, behind Optuna's cache"),
    # What `ExtensibleRDBStorage` and `Storage` override. Private methods are called by Optuna's cache.
    _Method(RDBStorage, "_create_new_trial", "study_id template_trial", "creates a trial in a writing transaction"),
    _Method(RDBStorage, "_get_prepared_new_trial", "study_id template_trial session", "reserves budget and lease"),
    _Method(
        RDBStorage,
        "_set_trial_param",
        "trial_id param_name param_value_internal distribution previous_distribution",
        "checks the lease before a parameter is written",
    ),
    _Method(
        RDBStorage, "_get_trials", "study_id states included_trial_ids trial_id_greater_than", "is retried in outages"
    ),
    _Method(RDBStorage, "create_new_study", "directions study_name", "is retried in outages"),
    _Method(RDBStorage, "delete_study", "study_id", "deletes the child studies too"),
    _Method(RDBStorage, "set_study_user_attr", "study_id key value", "is retried in outages"),
    _Method(RDBStorage, "set_study_system_attr", "study_id key value", "is retried in outages"),
    _Method(RDBStorage, "set_trial_state_values", "trial_id state values", "checks the lease and ends it"),
    _Method(RDBStorage, "set_trial_intermediate_value", "trial_id step intermediate_value", "checks the lease"),
    _Method(RDBStorage, "set_trial_user_attr", "trial_id key value", "checks the lease"),
    _Method(RDBStorage, "set_trial_system_attr", "trial_id key value", "checks the lease"),
    _Method(RDBStorage, "record_heartbeat", "trial_id", "runs in a writing transaction"),
    _Attributes(RDBStorage, "url engine scoped_session", "hpo's own transactions use"),
    # Optuna's tables. An SQL statement that names a column which is gone would fail in the middle of a study.
    _Method(models.StudyModel, "find_or_raise_by_id", "study_id session for_update", "locks a study, as Optuna does"),
    _Method(models.TrialUserAttributeModel, "find_by_trial_and_key", "trial key session", _QUERIED),
    _Method(
        models.TrialIntermediateValueModel,
        "intermediate_value_to_stored_repr",
        "value",
        "encodes a report that is not finite",
    ),
    _Attributes(models.StudyModel, "study_id study_name", _QUERIED),
    _Attributes(models.StudyDirectionModel, "study_id objective direction", _QUERIED),
    _Attributes(models.StudyUserAttributeModel, "study_id key value_json", _QUERIED),
    _Attributes(models.StudySystemAttributeModel, "study_id key value_json", _QUERIED),
    _Attributes(models.TrialModel, "trial_id number study_id state datetime_start datetime_complete", _QUERIED),
    _Attributes(models.TrialParamModel, "param_id trial_id param_name param_value distribution_json", _QUERIED),
    _Attributes(models.TrialValueModel, "trial_id objective value value_type TrialValueType", _QUERIED),
    _Attributes(models.TrialUserAttributeModel, "trial_id key value_json", _QUERIED),
    _Attributes(
        models.TrialIntermediateValueModel, "trial_id step intermediate_value intermediate_value_type", _QUERIED
    ),
)


def verify_optuna() -> None:
    """Raise `StorageError` unless the installed Optuna has every private part that hpo uses."""
    missing = [text for part in _PARTS if (text := part.missing())]
    if not alembic_folder().is_dir():
        missing.append(f"{alembic_folder()}, which lists the versions of Optuna's tables")
    if missing:
        raise _unsuitable("; ".join(missing))


def study_id(study: optuna.Study) -> int:
    """Return the study's key in the database. Optuna's public API has names only."""
    return study._study_id


def trial_id(trial: Trial | FrozenTrial) -> int:
    """Return the trial's key in the database. A trial's public number is unique in its study only."""
    return trial._trial_id


def optuna_storage(study: optuna.Study) -> BaseStorage:
    """Return the storage that the study uses, with Optuna's cache around it."""
    return study._storage


def uncached_storage(study: optuna.Study) -> BaseStorage:
    """Return the storage of the study without Optuna's cache."""
    storage = study._storage
    return storage._backend if isinstance(storage, _CachedStorage) else storage


def clear_cached_trials(study: optuna.Study) -> None:
    """Make the sampler read the other trials again, as `Study.ask` does before it suggests."""
    study._thread_local.cached_all_trials = None


def cached_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return all trials of the study as they were first read since the last `clear_cached_trials`.

    They are not copied, and must not be changed.
    """
    return study._get_trials(deepcopy=False, use_cache=True)


def tell_trial(study: optuna.Study, trial: Trial, value: float | None, state: TrialState) -> bool:
    """Call `study.tell` and return whether the sampler stopped the study, as Grid search does after its last trial.

    `Study.stop` raises outside of `Study.optimize`, after the trial was written; hpo's workers ask and tell.
    """
    study._stop_flag = False
    study._thread_local.in_optimize_loop = True
    try:
        study.tell(trial, value, state=state)
    finally:
        study._thread_local.in_optimize_loop = False
    return study._stop_flag


def alembic_folder() -> Path:
    """Return the folder of the migrations that lead to the tables of the installed Optuna."""
    return Path(optuna.storages.__file__).parent / "_rdb" / "alembic"


class ExtensibleRDBStorage(RDBStorage):
    """An `RDBStorage` whose private extension points have public names. Optuna's cache calls the private ones."""

    def create_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        """Create a trial in a transaction of its own."""
        return super()._create_new_trial(study_id, template_trial)

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        return self.create_trial(study_id, template_trial)

    def add_trial_row(self, study_id: int, template_trial: FrozenTrial | None, session: Session) -> models.TrialModel:
        """Add a trial's row inside the transaction of `create_trial`, which holds the lock of the study."""
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> models.TrialModel:
        return self.add_trial_row(study_id, template_trial, session)

    def write_trial_param(
        self,
        trial_id: int,
        name: str,
        internal_value: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        """Write one sampled parameter in a transaction of its own."""
        super()._set_trial_param(trial_id, name, internal_value, distribution, previous_distribution)

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        self.write_trial_param(trial_id, param_name, param_value_internal, distribution, previous_distribution)

    def read_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """Read the trials of a study that are among `included_trial_ids` or newer than `trial_id_greater_than`."""
        return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        return self.read_trials(study_id, states, included_trial_ids, trial_id_greater_than)


verify_optuna()
