"""The tables that hpo adds to Optuna's database: budgets, workers and leases."""

from datetime import datetime
from typing import Any

from sqlalchemy import DDL, Float, ForeignKey, Integer, String, Text, event, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from hpo.storage.optuna_internals import models

SCHEMA_VERSION = 5

_STUDY_ID: Any = models.StudyModel.__table__.c.study_id
_TRIAL_ID: Any = models.TrialModel.__table__.c.trial_id


class Base(DeclarativeBase):
    """The declarative base of hpo's tables. Optuna's tables have their own."""


class SchemaRow(Base):
    """The version of these tables. Its row is written last: where it exists, all tables exist."""

    __tablename__ = "hpo_schema"

    schema_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    version: Mapped[int]


class StudyRow(Base):
    """The budget and state of a study.

    A child (a confirm or final study) is an Optuna study of its own. It is found by `parent_id` and `job`, never by its
    name, which another study may have. A `job` without a parent is an orphan: the parent was deleted.
    """

    __tablename__ = "hpo_studies"

    study_id: Mapped[int] = mapped_column(ForeignKey(_STUDY_ID, ondelete="CASCADE"), primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey(_STUDY_ID, ondelete="SET NULL"), index=True)
    job: Mapped[str | None] = mapped_column(String(512))
    max_trials: Mapped[int | None]
    max_seconds: Mapped[float | None] = mapped_column(Float(53))
    seconds_run: Mapped[float] = mapped_column(Float(53), default=0.0)
    phase: Mapped[str] = mapped_column(String(32), default="search")
    phase_reason: Mapped[str | None] = mapped_column(Text)  # why the study is in this phase, where that is an error
    # The process of the latest `hpo run`; None after its end.
    parent_machine: Mapped[str | None] = mapped_column(String(255))
    parent_pid: Mapped[int | None]
    parent_start: Mapped[str | None] = mapped_column(String(32))
    stop_requested: Mapped[bool] = mapped_column(default=False)


class WorkerRow(Base):
    """A worker process, its progress, and its heartbeat: a counter that it increments about once a second."""

    __tablename__ = "hpo_workers"
    # A worker's id is never reused: a new worker must not inherit a lease.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 (SQLAlchemy's own name and shape)

    worker_id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(String(32), unique=True)
    study_id: Mapped[int] = mapped_column(ForeignKey(_STUDY_ID, ondelete="CASCADE"), index=True)
    host: Mapped[str] = mapped_column(String(255))
    machine: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    process_start: Mapped[str] = mapped_column(String(32))
    device: Mapped[str] = mapped_column(String(64))
    phase: Mapped[str] = mapped_column(String(32), default="starting")
    trial: Mapped[int | None]
    step: Mapped[int | None]
    epoch: Mapped[float | None] = mapped_column(Float(53))
    epochs: Mapped[int | None]
    heartbeat: Mapped[int] = mapped_column(default=0)
    heartbeat_at: Mapped[datetime] = mapped_column(default=func.now())  # by the database's clock; for display only
    warning: Mapped[str | None] = mapped_column(Text)
    ended: Mapped[bool] = mapped_column(default=False)


class LeaseRow(Base):
    """The worker of an unfinished trial. A WAITING trial with a row was started before and can be resumed.

    `attempt` counts how often the trial was claimed; writes of an older attempt are rejected. `deaths` counts the
    workers that died while they ran the trial, since its last checkpoint.
    """

    __tablename__ = "hpo_leases"

    trial_id: Mapped[int] = mapped_column(ForeignKey(_TRIAL_ID, ondelete="CASCADE"), primary_key=True)
    worker_id: Mapped[int | None] = mapped_column(Integer, index=True)
    attempt: Mapped[int] = mapped_column(default=0)
    checkpoint: Mapped[str | None] = mapped_column(Text)
    deaths: Mapped[int] = mapped_column(default=0)


# SQLite reuses the id of a deleted study, and enforces foreign keys only for clients that ask for it, which the
# dashboard does not. The triggers delete the rows that a new study with the same id would inherit.
_ON_DELETE = {
    "studies": "DELETE FROM hpo_studies WHERE study_id = OLD.study_id; "
    "DELETE FROM hpo_workers WHERE study_id = OLD.study_id; "
    "UPDATE hpo_studies SET parent_id = NULL WHERE parent_id = OLD.study_id;",
    "trials": "DELETE FROM hpo_leases WHERE trial_id = OLD.trial_id;",
}
for _table, _statements in _ON_DELETE.items():
    _trigger = f"CREATE TRIGGER IF NOT EXISTS hpo_delete_{_table} AFTER DELETE ON {_table} BEGIN {_statements} END"
    event.listen(Base.metadata, "after_create", DDL(_trigger).execute_if(dialect="sqlite"))
