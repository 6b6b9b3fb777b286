"""Optuna's database storage with an exact budget and with leases, both checked inside the writing transactions."""

import shutil
import tempfile
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any

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
from hpo.errors.redact import redact_url
from hpo.storage import schema
from hpo.storage.database_file import DatabaseFile
from hpo.storage.models import LeaseRow, StudyRow
from hpo.storage.optuna_internals import ExtensibleRDBStorage, models, study_id, uncached_storage
from hpo.storage.retry import Method, RetryPolicy, StorageUnavailable, is_transient, retried
from hpo.storage.transactions import BudgetSpent, LeaseHolder, LeaseLost, check_budget, check_lease, lease_of
from hpo.storage.urls import copy_database, engine_options, engine_url, hide_password, is_read_only, parse_url

__all__ = ["BudgetSpent", "LeaseLost", "Storage", "StorageUnavailable", "open_storage", "storage_of"]


def open_storage(url: str | None = None, *, wait_seconds: float = 30.0) -> "Storage":
    """Open the database at `url` (None: `hpo.core.paths.default_storage()`) and create its tables if there are none.

    Raises `ConfigError` for an invalid URL, and `StorageError` for a server that does not respond for `wait_seconds`, a
    disk that cannot be written, and tables of another version. No message contains the password.
    """
    return Storage(default_storage() if url is None else url, wait_seconds=wait_seconds)


def storage_of(study: optuna.Study) -> "Storage":
    """Return the storage of a study without Optuna's cache. Raises `StorageError` for a storage that is not hpo's."""
    storage = uncached_storage(study)
    if not isinstance(storage, Storage):
        raise StorageError(f"The study {study.study_name!r} was not opened with hpo's storage: use open_storage.")
    return storage


def _direction_rows(study: optuna.Study) -> list[models.StudyDirectionModel]:
    return [models.StudyDirectionModel(direction=each, objective=n) for n, each in enumerate(study.directions)]


def _retried_read(method: Method) -> Method:
    """Decorate one of Optuna's reading methods: translate its errors, and retry it."""

    @wraps(method)
    def read(self: "Storage", *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except (SQLAlchemyError, StorageInternalError) as error:
            raise self._as_storage_error(error) from error

    return retried(read)  # type: ignore[return-value]


def _close(session: Session) -> None:
    """Close a session whose work is done. Its rollback fails where the server went down since: drop the connection."""
    try:
        session.close()
    except SQLAlchemyError:
        session.invalidate()


class Storage(ExtensibleRDBStorage):
    """An `RDBStorage` with hpo's tables beside Optuna's.

    Behaves as `RDBStorage` until `set_lease_holder(holder)`. From then on it acts for one worker: creating a trial
    reserves budget and lease in the transaction that creates it, or raises `BudgetSpent`; and each write to a
    trial checks in its own transaction that the worker still holds it, or raises `LeaseLost`.

    A SQLite file that cannot be written is opened as a copy, which can be read only.

    During an outage a worker's calls are retried by `retry_policy`, except its reports: they are kept in an outbox,
    and the training continues.
    """

    def __init__(self, url: str, *, wait_seconds: float = 30.0) -> None:
        self._address = parse_url(url)
        options = engine_options(self._address)
        self._is_copy, opened = is_read_only(self._address), self._address
        if self._is_copy:
            folder = tempfile.mkdtemp(prefix="hpo-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            opened = copy_database(self._address, Path(folder))
        schema.prepare(opened, options, wait_seconds)
        self._thread = threading.local()
        self._holder: LeaseHolder | None = None
        self._outbox: dict[tuple[int, int], float] = {}  # reports by trial and step, in their order
        self.retry_policy = RetryPolicy()
        self.is_unavailable = False  # at the worker's last heartbeat
        self._file: DatabaseFile | None = None  # of SQLite
        super().__init__(engine_url(opened), options, skip_compatibility_check=True, skip_table_creation=True)
        if self._address.get_backend_name() == "sqlite":
            self.engine.dispose()  # the connections of __init__ have no listeners
            self._file = DatabaseFile(Path(str(opened.database)))
            self._tune_sqlite(self.engine)
        else:
            weakref.finalize(self, self.engine.dispose)  # close the server's sessions with the storage

    def __reduce__(self) -> Any:
        return type(self), (self._address.render_as_string(hide_password=False),)

    def __str__(self) -> str:
        return redact_url(self._address.render_as_string(hide_password=False))

    def _tune_sqlite(self, engine: Engine) -> None:
        """Make writing transactions of this engine lock at their start, and others never. All check the file."""
        file = self._file
        assert file is not None
        file.watch(engine)

        @event.listens_for(engine, "connect")
        def connect(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # transactions start below, not where Python's sqlite3 would start them
            connection.execute("PRAGMA synchronous=NORMAL")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            file.check()
            # With the lock taken at the first write, 11 to 14 of 100 waiting trials went to two workers.
            writing = getattr(self._thread, "writing", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    def save_copy(self) -> Path | None:
        """Return a new file with what a removed SQLite database held; None where it cannot be saved."""
        return None if self._file is None else self._file.save_copy(self.engine)

    def empty_log(self) -> None:
        """Have what was committed so far in the database's own file, not only in SQLite's write-ahead log."""
        if self._file is not None:
            self._file.empty_log(self.engine)

    def set_lease_holder(self, holder: LeaseHolder | None, retry_policy: RetryPolicy | None = None) -> None:
        """Act for this worker from now on, in all threads of the process; with None for no worker, as initially."""
        self._holder = holder
        self.retry_policy = retry_policy or RetryPolicy()
        self.is_unavailable = False

    def unless_unavailable(self, condition: Callable[[], bool]) -> bool:
        """Return `condition()`, or False, without a retry, while the database is unavailable."""
        if self.is_unavailable:
            return False
        try:
            with self.retry_policy.disabled():
                return condition()
        except StorageUnavailable:
            return False

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open a writing transaction, committed at the end of the context. Raises `StorageError` if it fails.

        It cannot be nested: a thread has one session, which Optuna's own methods commit and close.
        """
        with self._writing() as session:
            yield session
            session.commit()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a reading transaction, which waits for no writer. Raises `StorageError` if it fails."""
        session: Session = self.scoped_session()
        try:
            yield session
        except SQLAlchemyError as error:
            raise self._as_storage_error(error) from error
        finally:
            _close(session)

    @contextmanager
    def _writing(self, trial_id: int | None = None) -> Iterator[Session]:
        """Open a writing transaction of this thread, which Optuna's methods inside the context join and commit.

        With a `trial_id`, the lease holder must hold that trial.
        """
        if self._is_copy:
            raise StorageError(
                f"storage: {self} cannot be written: the file, its folder or the file system is read-only. What only "
                "reads works: hpo list, status, best, predict. Copy the results to write them."
            )
        self._thread.writing = True
        session: Session = self.scoped_session()
        try:
            if trial_id is not None and self._holder is not None:
                check_lease(session, trial_id, self._holder)
            yield session
        except IntegrityError:
            raise  # handled by Optuna's methods
        except (SQLAlchemyError, StorageInternalError) as error:
            raise self._as_storage_error(error) from error
        finally:
            _close(session)
            self._thread.writing = False

    def _as_storage_error(self, error: Exception) -> StorageError:
        """Return a driver's error as `StorageUnavailable` if a retry can help, else as `StorageError`."""
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = hide_password(str(getattr(cause, "orig", None) or cause or error), self._address)
        kind = StorageUnavailable if is_transient(cause, self._address.get_backend_name()) else StorageError
        return kind(f"storage: {self} could not be used: {reason}.")

    @retried
    def create_child_study(
        self, name: str, parent: optuna.Study, max_trials: int, phase: str = "confirm"
    ) -> optuna.Study:
        """Return the child `name` of `parent`; create it with a budget of `max_trials` if there is none.

        `phase` is its purpose: confirm or retrain. Several workers may call this at once. Where the name is that of a
        study which is not this child, the child gets another one.
        """
        with self.transaction() as session:
            models.StudyModel.find_or_raise_by_id(study_id(parent), session, for_update=True)
            link = StudyRow.parent_id == study_id(parent), StudyRow.job == name
            query = select(models.StudyModel.study_name).join(StudyRow, StudyRow.study_id == models.StudyModel.study_id)
            stored = session.scalar(query.where(*link))
            if stored is None:
                taken = session.scalar(select(models.StudyModel).where(models.StudyModel.study_name == name))
                stored = name if taken is None else f"{name[:470]}-{uuid.uuid4().hex}"
                study = models.StudyModel(study_name=stored, directions=_direction_rows(parent))
                session.add(study)
                session.flush()
                row = StudyRow(study_id=study.study_id, parent_id=study_id(parent), job=name)
                row.max_trials, row.phase = max_trials, phase
                session.add(row)
        return optuna.load_study(study_name=stored, storage=self)

    # Optuna's writing methods, each with hpo's rules checked before in the same transaction.

    @retried
    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        with self._writing():
            return super().create_new_study(directions, study_name)

    @retried
    def delete_study(self, study_id: int) -> None:
        with self.transaction() as session:
            children = session.scalars(select(StudyRow.study_id).where(StudyRow.parent_id == study_id)).all()
        for child in children:
            self.delete_study(child)
        with self._writing():
            super().delete_study(study_id)

    @retried
    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        with self._writing():
            super().set_study_user_attr(study_id, key, value)

    @retried
    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        with self._writing():
            super().set_study_system_attr(study_id, key, value)
        self.empty_log()

    @retried
    def create_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        with self._writing():
            return super().create_trial(study_id, template_trial)

    def add_trial_row(self, study_id: int, template_trial: FrozenTrial | None, session: Session) -> models.TrialModel:
        holder = self._holder
        if holder is None or template_trial is not None:
            return super().add_trial_row(study_id, template_trial, session)
        lease = lease_of(session, study_id, holder)
        if lease is not None:  # a retry: the response to the first try was lost
            return session.get_one(models.TrialModel, holder.adopt(lease))
        check_budget(session, study_id)
        trial = super().add_trial_row(study_id, None, session)
        lease = LeaseRow(trial_id=trial.trial_id, worker_id=holder.worker_id, attempt=1, deaths=0)
        session.add(lease)
        holder.adopt(lease)
        return trial

    @retried
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

    @retried
    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        with self._writing(trial_id) as session:
            if state.is_finished():
                session.execute(delete(LeaseRow).where(LeaseRow.trial_id == trial_id))
            changed = super().set_trial_state_values(trial_id, state, values)
        if state.is_finished():
            self.empty_log()
        return changed

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
        """Write the reports of the current trial from the outbox. Raises `StorageUnavailable` and `LeaseLost`."""
        for (trial_id, step), value in list(self._outbox.items()):
            if self._holder is not None and trial_id == self._holder.trial_id:
                try:
                    self._insert_report(trial_id, step, value)
                except IntegrityError:  # this rung has a report already
                    with self._writing(trial_id):
                        super().set_trial_intermediate_value(trial_id, step, value)
            del self._outbox[trial_id, step]

    def _insert_report(self, trial_id: int, step: int, value: float) -> None:
        """Insert a report without Optuna's queries for the trial and an earlier report, which take half of the time."""
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        row = {"trial_id": trial_id, "step": step, "intermediate_value": stored, "intermediate_value_type": kind}
        with self._writing(trial_id) as session:
            session.execute(insert(models.TrialIntermediateValueModel).values(row))
            session.commit()

    @retried
    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._writing(trial_id):
            super().set_trial_user_attr(trial_id, key, value)

    @retried
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
