"""Creates a study: its record, its budget and the first trials; or completes the creation of an existing one."""

import warnings

import optuna

from hpo.config.yaml import to_yaml
from hpo.core.paths import run_folder
from hpo.search.warm_start import copy_trials
from hpo.storage.budget import list_studies, request_stop, set_budget, set_phase
from hpo.storage.records.study import Ranking, StudyRecord
from hpo.storage.records.trial import TrialRecord
from hpo.storage.storage import Storage
from hpo.workflow.context import StudyContext, describe_data, versions
from hpo.workflow.launch.resume import source_studies
from hpo.workflow.worker.stages import FIRST_TRIAL


def create_study(context: StudyContext, storage: Storage, ranking: Ranking | None = None) -> optuna.Study:
    """Create the study of `context.config` in `storage`, or give an existing one the budget of `context.config`.

    The models that `ranking` puts first are tried first. An existing study must have passed `existing_study`. Raises
    `StudyError` for studies in `warm_start` that cannot be used.
    """
    config = context.config
    # Before the study is created: a mistake in `warm_start` leaves none behind.
    same, others = ([], []) if _is_complete(storage, config.name) else source_studies(storage, config, context.data)
    study = optuna.create_study(
        study_name=config.name, storage=storage, direction=context.scorer.direction, load_if_exists=True
    )
    _record(study, context, ranking)
    hours = config.budget.max_hours
    set_budget(study, config.budget.max_trials, None if hours is None else hours * 3600)
    request_stop(study, False)
    set_phase(study, "search")
    if not StudyRecord.of(study).first_trials:
        for source in same:
            copy_trials(study, source, config.search_space, config.labels)
        StudyRecord(source_studies=tuple(source.study_name for source in others)).save(study)
        queue = context.first_trials(ranking.order if ranking else ()).points
        origin = TrialRecord(origin=FIRST_TRIAL).attributes()["user_attrs"]
        for params in queue[: config.budget.max_trials]:
            study.enqueue_trial(params, user_attrs=origin, skip_if_exists=True)
        StudyRecord(first_trials=len(queue)).save(study)  # last: after a kill, the next run continues to enqueue
    folder = run_folder(config.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(to_yaml(config.redacted()), encoding="utf-8")
    return study


def _is_complete(storage: Storage, name: str) -> bool:
    """Whether the study exists with its copied trials and its first trials."""
    if name not in list_studies(storage):
        return False
    return bool(StudyRecord.of(optuna.load_study(study_name=name, storage=storage)).first_trials)


def _record(study: optuna.Study, context: StudyContext, ranking: Ranking | None) -> None:
    if not study.metric_names:
        with warnings.catch_warnings():
            # Marked experimental; all it does is name the axis in the dashboard.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([context.scorer.name])
    StudyRecord(
        metric=context.scorer.name,
        versions=versions(),
        data=describe_data(context.data),
        ranking=ranking,
        result=None,
        config=context.config.redacted(),
    ).save(study)
