"""Optuna's database storage with hpo's rules in its transactions: an exact budget, and no word from a lost worker."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Engine, delete, event, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from hpo.core.errors import StorageError
from hpo.core.paths import default_storage
from hpo.study import schema
from hpo.study.database import engine_options, hide_password, read_url, without_secrets
from hpo.study.rules import BudgetSpent, Holder, LeaseLost, check_budget, check_lease, lease_of
from hpo.study.tables import LeaseRow, StudyRow

__all__ = ["BudgetSpent", "LeaseLost", "Storage", "hide_password", "open_storage", "storage_of"]


def open_storage(url: str | None = None, *, wait_seconds: float = 30.0) -> "Storage":
    """Open the database at `url` (None: `hpo.core.paths.default_storage()`), its tables made where there are none.

    Raises `StorageError` for a URL that is no good, a server that is silent for `wait_seconds`, a disk that cannot
    be written, and tables of another version. No message shows the password.
    """
    return Storage(default_storage() if url is None else url, wait_seconds=wait_seconds)


def storage_of(study: optuna.Study) -> "Storage":
    """The storage of a study, out of the cache that Optuna puts around it."""
    storage = study._storage
    if isinstance(storage, _CachedStorage):
        storage = storage._backend
    if not isinstance(storage, Storage):
        raise StorageError(f"The study {study.study_name!r} was not opened on one of hpo's storages: use open_storage.")
    return storage


class Storage(RDBStorage):
    """An `RDBStorage` that keeps hpo's tables beside Optuna's.

    As it comes it does what `RDBStorage` does. After `act_as(holder)` it acts for one worker: creating a trial
    reserves budget and lease in the transaction that creates it, or raises `BudgetSpent`; and each write to a
    trial checks in its own transaction that the worker still holds it, or raises `LeaseLost`.
    """

    def __init__(self, url: str, *, wait_seconds: float = 30.0) -> None:
        self._address = read_url(url)
        options = engine_options(self._address)
        schema.prepare(self._address, options, wait_seconds)
        self._thread = threading.local()
        self._holder: Holder | None = None
        super().__init__(
            schema.template_escaped(self._address), options, skip_compatibility_check=True, skip_table_creation=True
        )
        if self._address.get_backend_name() == "sqlite":
            self.engine.dispose()  # the connections of __init__ were made without the listeners
            self._tune_sqlite(self.engine)

    def __reduce__(self) -> Any:
        return type(self), (self.url,)

    def __str__(self) -> str:
        return hide_password(self._address.render_as_string(hide_password=False))

    def _tune_sqlite(self, engine: Engine) -> None:
        """Writing transactions lock at their start, others never do. Bound to this engine: no other one is touched."""

        @event.listens_for(engine, "connect")
        def connect(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # transactions begin below, not where Python's sqlite3 would
            connection.execute("PRAGMA synchronous=NORMAL")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # Of 100 waiting trials, 11 to 14 went to two workers where the lock was taken at the first write only.
            writing = getattr(self._thread, "writing", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    def act_as(self, holder: Holder | None) -> None:
        """Act for this worker from now on, in all threads of the process; None acts for nobody, as at the start."""
        self._holder = holder

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One writing transaction of hpo's own, committed at the end. Raises `StorageError` when it fails.

        Not to be nested: a thread has one session, which Optuna's own methods commit and close.
        """
        with self._writing() as session:
            yield session
            session.commit()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One reading transaction, which waits for no writer. Raises `StorageError` when it fails."""
        session: Session = self.scoped_session()
        try:
            yield session
        except SQLAlchemyError as error:
            raise StorageError(self._explain(error)) from error
        finally:
            session.close()

    @contextmanager
    def _writing(self, trial_id: int | None = None) -> Iterator[Session]:
        """Make the transaction of this thread a writing one: what Optuna's method does inside joins and commits it.

        With a `trial_id`, the worker for which the storage acts must hold that trial.
        """
        self._thread.writing = True
        session: Session = self.scoped_session()
        try:
            if trial_id is not None and self._holder is not None:
                check_lease(session, trial_id, self._holder)
            yield session
        except IntegrityError:
            raise  # Optuna's own methods make something of it
        except (SQLAlchemyError, StorageInternalError) as error:
            raise StorageError(self._explain(error)) from error
        finally:
            session.close()
            self._thread.writing = False

    def _explain(self, error: Exception) -> str:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = without_secrets(str(getattr(cause, "orig", None) or cause or error), self._address)
        return f"storage: {self} could not be used: {reason}."

    def create_child_study(
        self, name: str, parent: optuna.Study, max_trials: int, phase: str = "confirm"
    ) -> optuna.Study:
        """The study `name` of `parent`'s own, made where there is none, with room for `max_trials` trials.

        `phase` says what it is for: confirm or retrain. Several workers may call this at once.
        """
        study = optuna.create_study(study_name=name, storage=self, directions=parent.directions, load_if_exists=True)
        with self.transaction() as session:
            models.StudyModel.find_or_raise_by_id(study._study_id, session, for_update=True)
            row = session.get(StudyRow, study._study_id) or StudyRow(study_id=study._study_id)
            row.parent_id, row.max_trials, row.phase = parent._study_id, max_trials, phase
            session.add(row)
        return study

    # What follows are Optuna's writing methods, with hpo's rules before them in the same transaction.

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        with self._writing():
            return super().create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        with self.transaction() as session:
            children = session.scalars(select(StudyRow.study_id).where(StudyRow.parent_id == study_id)).all()
        for child in children:
            self.delete_study(child)
        with self._writing():
            super().delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        with self._writing():
            super().set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        with self._writing():
            super().set_study_system_attr(study_id, key, value)

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        with self._writing():
            return super()._create_new_trial(study_id, template_trial)

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> models.TrialModel:
        holder = self._holder
        if holder is None or template_trial is not None:
            return super()._get_prepared_new_trial(study_id, template_trial, session)
        lease = lease_of(session, study_id, holder)
        if lease is not None:  # a retry, after the answer to the first try got lost
            return session.get_one(models.TrialModel, holder.hold(lease))
        check_budget(session, study_id)
        trial = super()._get_prepared_new_trial(study_id, None, session)
        lease = LeaseRow(trial_id=trial.trial_id, worker_id=holder.worker_id, attempt=1, deaths=0)
        session.add(lease)
        holder.hold(lease)
        return trial

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        with self._writing(trial_id):
            super()._set_trial_param(trial_id, param_name, param_value_internal, distribution, previous_distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        if self._holder is not None and state == TrialState.RUNNING:
            return False  # `Study.ask` looks for waiting trials: those are handed out by hpo's own queue
        with self._writing(trial_id) as session:
            if state.is_finished():
                session.execute(delete(LeaseRow).where(LeaseRow.trial_id == trial_id))
            return super().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        with self._writing(trial_id):
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._writing(trial_id):
            super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._writing(trial_id):
            super().set_trial_system_attr(trial_id, key, value)

    def record_heartbeat(self, trial_id: int) -> None:
        with self._writing():
            super().record_heartbeat(trial_id)
