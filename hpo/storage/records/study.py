"""The record of a study: what it is made from, what it decided, and its result."""

from typing import Any, Self

import optuna
from pydantic import Field

from hpo.config.load import load_config
from hpo.config.study import StudyConfig
from hpo.storage.optuna_internals import optuna_storage, study_id
from hpo.storage.records.base import AttributeRecord, Record
from hpo.storage.records.final_model import DataRecord, FinalModel

METRIC = "metric"  # the attribute's key, for SQL statements


class RankedModel(Record):
    """A candidate before the first trial. `score` is better when higher; where it is None, `why` gives the reason."""

    model: str
    parameters: int
    layers: int
    score: float | None
    seconds: float
    why: str = ""


class Ranking(Record):
    """The candidates, best first. `rows` is the number of training rows that the scores were computed on."""

    rows: int
    models: tuple[RankedModel, ...]

    @property
    def order(self) -> list[str]:
        """The models' labels, best first."""
        return [ranked.model for ranked in self.models]


class HeldOutEvaluation(Record):
    """One evaluation on the test split: each one makes the next choice between models more optimistic."""

    model_dir: str
    value: float
    when: str


class StudyRecord(AttributeRecord):
    """What hpo records of a study. Of one that was killed while it was being created, the last fields are missing."""

    metric: str = "value"
    versions: dict[str, str] = Field({})
    data: DataRecord = DataRecord()
    ranking: Ranking | None = None
    result: FinalModel | None = None
    config: dict[str, Any] = Field({})  # as written by `StudyConfig.recorded`
    source_studies: tuple[str, ...] = ()  # whose trials inform the sampler without being copied
    first_trials: int = 0  # configurations queued before the search; 0: queuing them is not finished
    test_evaluations: tuple[HeldOutEvaluation, ...] = ()

    @classmethod
    def of(cls, study: optuna.Study) -> Self:
        """Read the record of `study`."""
        return cls.from_attributes(study.user_attrs, optuna_storage(study).get_study_system_attrs(study_id(study)))

    def save(self, study: optuna.Study) -> None:
        """Write the fields that are set and differ from what `study` has, in the order of their declaration."""
        written, storage = self.attributes(), optuna_storage(study)
        known, own = study.user_attrs, storage.get_study_system_attrs(study_id(study))
        for key, value in written["user_attrs"].items():
            if key not in known or known[key] != value:
                study.set_user_attr(key, value)
        for key, value in written["system_attrs"].items():
            if key not in own or own[key] != value:
                storage.set_study_system_attr(study_id(study), key, value)

    @property
    def study_config(self) -> StudyConfig:
        """The validated configuration. Raises `ConfigError` where this version of hpo does not accept it."""
        return load_config(self.config)
