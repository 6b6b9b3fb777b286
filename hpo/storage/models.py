"""The small tables that hpo keeps beside Optuna's, in the same database: budgets, workers and leases."""

from datetime import datetime
from typing import Any

from sqlalchemy import DDL, Float, ForeignKey, Integer, String, Text, event, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from hpo.storage.optuna_internals import models

SCHEMA_VERSION = 3

_STUDY_ID: Any = models.StudyModel.__table__.c.study_id
_TRIAL_ID: Any = models.TrialModel.__table__.c.trial_id


class Base(DeclarativeBase):
    """hpo's tables. Those of Optuna have a base of their own."""


class SchemaRow(Base):
    """The version of these tables. Written last when they are made: where it stands, everything stands."""

    __tablename__ = "hpo_schema"

    schema_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    version: Mapped[int]


class StudyRow(Base):
    """A study's budget and how far it is. A confirm study is an Optuna study of its own that names its parent."""

    __tablename__ = "hpo_studies"

    study_id: Mapped[int] = mapped_column(ForeignKey(_STUDY_ID, ondelete="CASCADE"), primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey(_STUDY_ID, ondelete="SET NULL"), index=True)
    max_trials: Mapped[int | None]
    max_seconds: Mapped[float | None] = mapped_column(Float(53))
    seconds_run: Mapped[float] = mapped_column(Float(53), default=0.0)
    phase: Mapped[str] = mapped_column(String(32), default="search")
    stop_requested: Mapped[bool] = mapped_column(default=False)


class WorkerRow(Base):
    """A worker process, what it does, and its beat: a counter that it raises about once a second."""

    __tablename__ = "hpo_workers"
    # A worker's id is never given twice: a lease must not pass to a newcomer.
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
    heartbeat_at: Mapped[datetime] = mapped_column(
        default=func.now()
    )  # by the database's clock; for people's eyes only
    warning: Mapped[str | None] = mapped_column(Text)
    ended: Mapped[bool] = mapped_column(default=False)


class LeaseRow(Base):
    """Who works on an unfinished trial. A trial that is WAITING and has a row was begun, and can go on.

    `attempt` rises each time the trial is handed out; a worker that names an older one is refused. `deaths`
    counts the workers that died on the trial since its last checkpoint.
    """

    __tablename__ = "hpo_leases"

    trial_id: Mapped[int] = mapped_column(ForeignKey(_TRIAL_ID, ondelete="CASCADE"), primary_key=True)
    worker_id: Mapped[int | None] = mapped_column(Integer, index=True)
    attempt: Mapped[int] = mapped_column(default=0)
    checkpoint: Mapped[str | None] = mapped_column(Text)
    deaths: Mapped[int] = mapped_column(default=0)


# SQLite gives a deleted study's id to the next one, and holds no foreign keys unless each client asks for it, which
# the dashboard does not: triggers see to it that no old budget or lease meets a new study.
_ON_DELETE = {
    "studies": "DELETE FROM hpo_studies WHERE study_id = OLD.study_id; "
    "DELETE FROM hpo_workers WHERE study_id = OLD.study_id; "
    "UPDATE hpo_studies SET parent_id = NULL WHERE parent_id = OLD.study_id;",
    "trials": "DELETE FROM hpo_leases WHERE trial_id = OLD.trial_id;",
}
for _table, _statements in _ON_DELETE.items():
    _trigger = f"CREATE TRIGGER IF NOT EXISTS hpo_forget_{_table} AFTER DELETE ON {_table} BEGIN {_statements} END"
    event.listen(Base.metadata, "after_create", DDL(_trigger).execute_if(dialect="sqlite"))
