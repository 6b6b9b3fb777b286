"""Creating a study: its record, its budget and the configurations to try first, or all of it again to go on."""

import warnings

import optuna

from hpo.config.yaml import to_yaml
from hpo.core.paths import run_folder
from hpo.search.ranking import RANKING, Ranking
from hpo.search.surrogate.transfer import SOURCE_STUDIES
from hpo.search.warm_start import copy_trials
from hpo.storage.budget import list_studies, request_stop, set_budget, set_phase
from hpo.storage.storage import Storage
from hpo.workflow.context import StudyContext, describe_data, versions
from hpo.workflow.launch.resume import earlier_studies


def create_study(context: StudyContext, storage: Storage, ranking: Ranking | None = None) -> optuna.Study:
    """The study of `context.config` in `storage`, ready for workers; one that exists gets the budget as it is now.

    Models that `ranking` puts first are tried first. The caller has held an existing study against the configuration
    (`existing_study`).
    """
    config = context.config
    # First of all: a mistake in `warm_start` leaves no study behind.
    same, others = ([], []) if _is_begun(storage, config.name) else earlier_studies(storage, config, context.data)
    study = optuna.create_study(
        study_name=config.name, storage=storage, direction=context.scorer.direction, load_if_exists=True
    )
    _record(study, context, ranking)
    hours = config.budget.max_hours
    set_budget(study, config.budget.max_trials, None if hours is None else hours * 3600)
    request_stop(study, False)
    set_phase(study, "search")
    if not study.user_attrs.get("first_trials"):
        for source in same:
            copy_trials(study, source, config.search_space, config.labels)
        study.set_user_attr(SOURCE_STUDIES, [source.study_name for source in others])
        queue = context.first_trials(ranking.order if ranking else ()).points
        for params in queue[: config.budget.max_trials]:
            study.enqueue_trial(params, user_attrs={"origin": "first trial"}, skip_if_exists=True)
        study.set_user_attr("first_trials", len(queue))  # last: killed before, the next run goes on enqueuing
    folder = run_folder(config.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(to_yaml(config.redacted()), encoding="utf-8")
    return study


def _is_begun(storage: Storage, name: str) -> bool:
    """Whether the study exists with all that it starts with: what was taken over, what is tried first."""
    if name not in list_studies(storage):
        return False
    return bool(optuna.load_study(study_name=name, storage=storage).user_attrs.get("first_trials"))


def _record(study: optuna.Study, context: StudyContext, ranking: Ranking | None) -> None:
    """Write what the study is made from: its workers read it, its reports show it."""
    if not study.metric_names:
        with warnings.catch_warnings():
            # Marked experimental; all it does is name the axis in the dashboard.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([context.scorer.name])
    attributes = {
        "metric": context.scorer.name,
        "versions": versions(),
        "data": describe_data(context.data),
        "result": None,
        RANKING: None if ranking is None else ranking.to_dict(),
        "config": context.config.redacted(),
    }
    for key, value in attributes.items():
        if study.user_attrs.get(key) != value:
            study.set_user_attr(key, value)
