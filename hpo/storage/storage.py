"""Optuna's database storage with hpo's rules in its transactions: an exact budget, and no word from a lost worker."""

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Engine, delete, event, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from hpo.core.paths import default_storage
from hpo.errors import StorageError
from hpo.storage import schema
from hpo.storage.models import LeaseRow, StudyRow
from hpo.storage.optuna_internals import ExtensibleRDBStorage, models, study_id, uncached_storage
from hpo.storage.retry import RetryPolicy, StorageUnavailable, is_transient
from hpo.storage.transactions import BudgetSpent, LeaseHolder, LeaseLost, check_budget, check_lease, lease_of
from hpo.storage.urls import engine_options, hide_password, parse_url, redact

__all__ = ["BudgetSpent", "LeaseLost", "Storage", "StorageUnavailable", "hide_password", "open_storage", "storage_of"]

Method = TypeVar("Method", bound=Callable[..., Any])


def open_storage(url: str | None = None, *, wait_seconds: float = 30.0) -> "Storage":
    """Open the database at `url` (None: `hpo.core.paths.default_storage()`), its tables made where there are none.

    Raises `StorageError` for a URL that is no good, a server that is silent for `wait_seconds`, a disk that cannot
    be written, and tables of another version. No message shows the password.
    """
    return Storage(default_storage() if url is None else url, wait_seconds=wait_seconds)


def storage_of(study: optuna.Study) -> "Storage":
    """The storage of a study, out of the cache that Optuna puts around it."""
    storage = uncached_storage(study)
    if not isinstance(storage, Storage):
        raise StorageError(f"The study {study.study_name!r} was not opened on one of hpo's storages: use open_storage.")
    return storage


def _retried(method: Method) -> Method:
    """The method, carried out again while the database is away, as far as the storage's patience goes."""

    @wraps(method)
    def retried(self: "Storage", *args: Any, **kwargs: Any) -> Any:
        return self.retry_policy.call(lambda: method(self, *args, **kwargs))

    return retried  # type: ignore[return-value]


def _retried_read(method: Method) -> Method:
    """One of Optuna's reading methods, which tell of an outage in several ways, made patient."""

    @wraps(method)
    def read(self: "Storage", *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except (SQLAlchemyError, StorageInternalError) as error:
            raise self._translated(error) from error

    return _retried(read)  # type: ignore[return-value]


class Storage(ExtensibleRDBStorage):
    """An `RDBStorage` that keeps hpo's tables beside Optuna's.

    Behaves as `RDBStorage` until `set_lease_holder(holder)`. From then on it acts for one worker: creating a trial
    reserves budget and lease in the transaction that creates it, or raises `BudgetSpent`; and each write to a
    trial checks in its own transaction that the worker still holds it, or raises `LeaseLost`.

    While the database is away, what a worker asks waits for it (`patience`), except its reports: they wait in an
    outbox, and the training goes on.
    """

    def __init__(self, url: str, *, wait_seconds: float = 30.0) -> None:
        self._address = parse_url(url)
        options = engine_options(self._address)
        schema.prepare(self._address, options, wait_seconds)
        self._thread = threading.local()
        self._holder: LeaseHolder | None = None
        self._outbox: dict[tuple[int, int], float] = {}  # reports by trial and step, in the order they were made
        self.retry_policy = RetryPolicy()
        self.is_unavailable = False  # as a worker's last beat found it
        super().__init__(
            schema.escape_template(self._address), options, skip_compatibility_check=True, skip_table_creation=True
        )
        if self._address.get_backend_name() == "sqlite":
            self.engine.dispose()  # the connections of __init__ were made without the listeners
            self._tune_sqlite(self.engine)
        else:
            weakref.finalize(self, self.engine.dispose)  # a forgotten storage leaves no session on the server

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

    def set_lease_holder(self, holder: LeaseHolder | None, retry_policy: RetryPolicy | None = None) -> None:
        """Act for this worker from now on, in all threads of the process; None acts for nobody, as at the start."""
        self._holder = holder
        self.retry_policy = retry_policy or RetryPolicy()
        self.is_unavailable = False

    def unless_unavailable(self, ask: Callable[[], bool]) -> bool:
        """What `ask()` says; False, without waiting, while the database is away."""
        if self.is_unavailable:
            return False
        try:
            with self.retry_policy.disabled():
                return ask()
        except StorageUnavailable:
            return False

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
            raise self._translated(error) from error
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
            raise self._translated(error) from error
        finally:
            session.close()
            self._thread.writing = False

    def _translated(self, error: Exception) -> StorageError:
        """What a driver raised as an error of ours: `StorageUnavailable` where asking again can help."""
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = redact(str(getattr(cause, "orig", None) or cause or error), self._address)
        kind = StorageUnavailable if is_transient(cause, self._address.get_backend_name()) else StorageError
        return kind(f"storage: {self} could not be used: {reason}.")

    @_retried
    def create_child_study(
        self, name: str, parent: optuna.Study, max_trials: int, phase: str = "confirm"
    ) -> optuna.Study:
        """The study `name` of `parent`'s own, made where there is none, with room for `max_trials` trials.

        `phase` says what it is for: confirm or retrain. Several workers may call this at once.
        """
        study = optuna.create_study(study_name=name, storage=self, directions=parent.directions, load_if_exists=True)
        with self.transaction() as session:
            models.StudyModel.find_or_raise_by_id(study_id(study), session, for_update=True)
            if session.get(StudyRow, study_id(study)) is None:  # else as it is: it may have been closed
                row = StudyRow(study_id=study_id(study), parent_id=study_id(parent), max_trials=max_trials, phase=phase)
                session.add(row)
        return study

    # What follows are Optuna's writing methods, with hpo's rules before them in the same transaction.

    @_retried
    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        with self._writing():
            return super().create_new_study(directions, study_name)

    @_retried
    def delete_study(self, study_id: int) -> None:
        with self.transaction() as session:
            children = session.scalars(select(StudyRow.study_id).where(StudyRow.parent_id == study_id)).all()
        for child in children:
            self.delete_study(child)
        with self._writing():
            super().delete_study(study_id)

    @_retried
    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        with self._writing():
            super().set_study_user_attr(study_id, key, value)

    @_retried
    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        with self._writing():
            super().set_study_system_attr(study_id, key, value)

    @_retried
    def create_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        with self._writing():
            return super().create_trial(study_id, template_trial)

    def add_trial_row(self, study_id: int, template_trial: FrozenTrial | None, session: Session) -> models.TrialModel:
        holder = self._holder
        if holder is None or template_trial is not None:
            return super().add_trial_row(study_id, template_trial, session)
        lease = lease_of(session, study_id, holder)
        if lease is not None:  # a retry, after the answer to the first try got lost
            return session.get_one(models.TrialModel, holder.adopt(lease))
        check_budget(session, study_id)
        trial = super().add_trial_row(study_id, None, session)
        lease = LeaseRow(trial_id=trial.trial_id, worker_id=holder.worker_id, attempt=1, deaths=0)
        session.add(lease)
        holder.adopt(lease)
        return trial

    @_retried
    def write_trial_param(
        self,
        trial_id: int,
        name: str,
        internal_value: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        with self._writing(trial_id):
            super().write_trial_param(trial_id, name, internal_value, distribution, previous_distribution)

    @_retried
    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        with self._writing(trial_id) as session:
            if state.is_finished():
                session.execute(delete(LeaseRow).where(LeaseRow.trial_id == trial_id))
            return super().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        if self._holder is None:
            with self._writing(trial_id):
                super().set_trial_intermediate_value(trial_id, step, intermediate_value)
            return
        self._outbox[trial_id, step] = intermediate_value
        if not self.is_unavailable:
            with suppress(StorageUnavailable):
                self.send_reports()

    def send_reports(self) -> None:
        """Write what the outbox holds of the trial in hand. Raises `StorageUnavailable` and `LeaseLost`."""
        for (trial_id, step), value in list(self._outbox.items()):
            if self._holder is not None and trial_id == self._holder.trial_id:
                try:
                    self._insert_report(trial_id, step, value)
                except IntegrityError:  # there is one of this rung
                    with self._writing(trial_id):
                        super().set_trial_intermediate_value(trial_id, step, value)
            del self._outbox[trial_id, step]

    def _insert_report(self, trial_id: int, step: int, value: float) -> None:
        """What Optuna's method does, without its looks at the trial and an earlier report: half of a report's work."""
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        row = {"trial_id": trial_id, "step": step, "intermediate_value": stored, "intermediate_value_type": kind}
        with self._writing(trial_id) as session:
            session.execute(insert(models.TrialIntermediateValueModel).values(row))
            session.commit()

    @_retried
    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._writing(trial_id):
            super().set_trial_user_attr(trial_id, key, value)

    @_retried
    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._writing(trial_id):
            super().set_trial_system_attr(trial_id, key, value)

    def record_heartbeat(self, trial_id: int) -> None:
        with self._writing():
            super().record_heartbeat(trial_id)


for _name in (
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_study_directions",
    "get_all_studies",
    "get_trial_id_from_study_id_trial_number",
    "get_trial_number_from_id",
    "get_trial_param",
    "get_trial",
    "get_all_trials",
    "get_best_trial",
    "read_trials",
):
    setattr(Storage, _name, _retried_read(getattr(ExtensibleRDBStorage, _name)))
