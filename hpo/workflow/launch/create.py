"""Creates a study with its record, its budget and its first trials; or updates an existing one to be resumed."""

import warnings

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.config.yaml import to_yaml
from hpo.core.paths import claim_run_folder
from hpo.search.warm_start import copies
from hpo.storage.budget import request_stop, requeue_failed, set_budget, set_parent, set_phase
from hpo.storage.optuna_internals import study_id
from hpo.storage.records.digests import digests
from hpo.storage.records.study import Ranking, StudyRecord
from hpo.storage.records.trial import TrialRecord
from hpo.storage.storage import Storage, storage_of
from hpo.storage.studies import add_study, remove_children
from hpo.workflow.context import StudyContext, describe_data, versions
from hpo.workflow.launch.resume import STAGES, existing_study, source_studies
from hpo.workflow.worker.stages import FIRST_TRIAL


def create_study(
    context: StudyContext, storage: Storage, ranking: Ranking | None = None, *, retry_failed: bool = False
) -> optuna.Study:
    """Create the study of `context.config` in `storage`, or prepare the one of this name to be resumed.

    The models that `ranking` puts first are tried first; `retry_failed` returns the failed trials to the queue. Raises
    `StudyError` for studies in `warm_start` that cannot be used, and for an existing study of something else, which
    another process may have created at the same moment.
    """
    config = context.config
    known = existing_study(storage, config, context.data, context.scorer.direction)
    if known is None:
        _add(context, storage, ranking)
    # Also after creating it: another process may have been first, with another configuration.
    study = existing_study(storage, config, context.data, context.scorer.direction)
    assert study is not None
    if known is not None:
        _queue_new(study, context)
    _resume(study, context, retry_failed)
    folder = claim_run_folder(config.name, StudyRecord.of(study).identity)
    (folder / "study.yaml").write_text(to_yaml(config.redacted()), encoding="utf-8")
    return study


def _add(context: StudyContext, storage: Storage, ranking: Ranking | None) -> None:
    """Create the study with all that it starts from, unless another process has done so."""
    config = context.config
    same, others = source_studies(storage, config, context.data)
    copied = [copy for source in same for copy in copies(source, config.search_space, config.labels)]
    tried = [trial.params for trial in copied]
    points = [point for point in context.first_trials(ranking.order if ranking else ()).points if point not in tried]
    record = StudyRecord(
        identity=context.identity,
        metric=context.scorer.name,
        versions=versions(),
        data=describe_data(context.data),
        digests=digests(config),
        ranking=ranking,
        result=None,
        config=config.redacted(),
        source_studies=tuple(source.study_name for source in others),
    )
    queued = [_queued(point) for point in points[: config.budget.max_trials]]
    add_study(
        storage,
        config.name,
        context.scorer.direction,
        record,
        [*copied, *queued],
        config.budget.max_trials,
        _max_seconds(context),
    )


def _queued(params: dict[str, object]) -> FrozenTrial:
    """Return a waiting trial of these parameters, as `Study.enqueue_trial` creates it."""
    return create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": params}, user_attrs=_origin())


def _queue_new(study: optuna.Study, context: StudyContext) -> None:
    """Queue the first trials that were added to the configuration since the study was created."""
    if list(context.config.first_trials) == StudyRecord.of(study).config["first_trials"]:
        return
    room = context.config.budget.max_trials - len(study.get_trials(deepcopy=False))
    for params in context.first_trials().points[: max(room, 0)] if context.config.first_trials else ():
        study.enqueue_trial(params, user_attrs=_origin(), skip_if_exists=True)


def _origin() -> dict[str, object]:
    """Return the attributes that mark a trial as queued before the search."""
    return TrialRecord(origin=FIRST_TRIAL).attributes()["user_attrs"]


def _resume(study: optuna.Study, context: StudyContext, retry_failed: bool) -> None:
    """Give the study the budget of `context.config`, queue what failed, and record what may have changed."""
    config = context.config
    if not study.metric_names:
        with warnings.catch_warnings():
            # Marked experimental; all it does is name the axis in the dashboard.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([context.scorer.name])
    before, now = StudyRecord.of(study).config, config.redacted()
    if any(before.get(key) != now[key] for key in STAGES):
        remove_children(storage_of(study), study_id(study), "retrain")  # their model may be replaced, and then back
    StudyRecord(versions=versions(), result=None, config=config.redacted()).save(study)
    set_budget(study, config.budget.max_trials, _max_seconds(context))
    request_stop(study, False)
    requeue_failed(study, search=retry_failed)
    set_parent(study)
    set_phase(study, "search")


def _max_seconds(context: StudyContext) -> float | None:
    hours = context.config.budget.max_hours
    return None if hours is None else hours * 3600
