"""The record of a study: what it is made from, what it decided, and its result."""

from typing import Annotated, Any, Self

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from hpo.config.load import load_config
from hpo.config.study import StudyConfig
from hpo.core.direction import Direction, loss_sign
from hpo.core.paths import run_folder
from hpo.storage.optuna_internals import optuna_storage, study_id
from hpo.storage.records.base import SYSTEM_PREFIX, AttributeRecord, Record, Redacted, SystemAttribute
from hpo.storage.records.final_model import DataRecord, FinalModel

# Keys of a user and of a system attribute, for SQL statements.
METRIC = "metric"
CONFIG = f"{SYSTEM_PREFIX}config"
IDENTITY = f"{SYSTEM_PREFIX}identity"


class RankedModel(Record):
    """A candidate before the first trial. `score` is better when higher; where it is None, `reason` gives the cause."""

    model: str
    parameters: int
    layers: int
    score: float | None
    seconds: float
    reason: Redacted = ""


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
    """The record of a study."""

    identity: Annotated[str, SystemAttribute] = ""  # random; also in every file of the study
    metric: str = "value"
    versions: Annotated[dict[str, str], SystemAttribute] = Field({})
    data: Annotated[DataRecord, SystemAttribute] = DataRecord()
    digests: Annotated[dict[str, str], SystemAttribute] = Field({})  # of the metric, the task and local models
    ranking: Annotated[Ranking | None, SystemAttribute] = None
    result: Annotated[FinalModel | None, SystemAttribute] = None
    config: Annotated[dict[str, Any], SystemAttribute] = Field({})  # as returned by `StudyConfig.redacted`
    source_studies: Annotated[tuple[str, ...], SystemAttribute] = ()  # whose trials inform the sampler
    test_evaluations: Annotated[tuple[HeldOutEvaluation, ...], SystemAttribute] = ()

    @classmethod
    def of(cls, study: optuna.Study) -> Self:
        """Read the record of `study`."""
        storage, key = optuna_storage(study), study_id(study)
        # Not `study.user_attrs`: samplers are passed a study without it where the pruner is Optuna's Hyperband.
        record = cls.from_attributes(storage.get_study_user_attrs(key), storage.get_study_system_attrs(key))
        if record.result is None:
            return record
        model_dir = run_folder(study.study_name, record.identity) / record.result.model_dir
        return record.model_copy(update={"result": record.result.model_copy(update={"model_dir": model_dir})})

    def save(self, study: optuna.Study) -> None:
        """Write the fields that are set and differ from what `study` has, in the order of their declaration."""
        written, storage = self.attributes(), optuna_storage(study)
        known, own = study.user_attrs, storage.get_study_system_attrs(study_id(study))
        for key, value in written["user_attrs"].items():
            if known.get(key) != value:
                study.set_user_attr(key, value)
        for key, value in written["system_attrs"].items():
            if own.get(key) != value:
                storage.set_study_system_attr(study_id(study), key, value)

    @property
    def study_config(self) -> StudyConfig:
        """The validated configuration. Raises `ConfigError` where this version of hpo does not accept it."""
        return load_config(self.config)


def direction_of(study: optuna.Study) -> Direction:
    """Return the direction of a study's one objective."""
    return "maximize" if study.direction == StudyDirection.MAXIMIZE else "minimize"


def complete_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the complete trials of a study, best first; of equal ones the earlier first."""
    return _sorted_trials(study, TrialState.COMPLETE)


def pruned_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the pruned trials of a study that reported a value, best first. Their value is their last report."""
    return _sorted_trials(study, TrialState.PRUNED)


def _sorted_trials(study: optuna.Study, state: TrialState) -> list[FrozenTrial]:
    sign = loss_sign(direction_of(study))
    scored = [trial for trial in study.get_trials(deepcopy=False, states=(state,)) if trial.value is not None]
    return sorted(scored, key=lambda trial: (sign * float(trial.value or 0.0), trial.number))
