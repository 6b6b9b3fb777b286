"""Studies are created with all that they start from, or not at all; children are found by their parent."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from hpo.errors import StudyError
from hpo.storage.budget import list_studies
from hpo.storage.records.study import StudyRecord
from hpo.storage.storage import Storage
from hpo.storage.studies import add_study, check_owner, remove_orphans


def test_study_has_its_record_and_trials_or_does_not_exist(storage: Storage) -> None:
    record = StudyRecord(identity="a", metric="f1", config={"name": "study"})
    queued = create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"x": 1}})
    unfit = create_trial(value=0.5, user_attrs={"circular": object()})
    with pytest.raises(TypeError):
        add_study(storage, "study", "maximize", record, [queued, unfit], 5)
    assert not storage.get_all_studies()
    assert add_study(storage, "study", "maximize", record, [queued, queued], 5)
    study = optuna.load_study(study_name="study", storage=storage)
    assert StudyRecord.of(study) == record and [trial.number for trial in study.trials] == [0, 1]
    assert not add_study(storage, "study", "maximize", record.model_copy(update={"identity": "b"}), [queued])
    assert len(study.trials) == 2 and StudyRecord.of(study).identity == "a"
    check_owner(storage, "study", "maximize")
    optuna.create_study(study_name="theirs", storage=storage).set_user_attr("mine", 1)
    with pytest.raises(StudyError, match="it has the attribute 'mine' of another program"):
        check_owner(storage, "theirs", "minimize")


def test_child_is_found_by_its_parent_and_removed_after_it(storage: Storage, study: optuna.Study) -> None:
    add_study(storage, "study/confirm", "maximize", StudyRecord(identity="a"))
    child = storage.create_child_study("study/confirm", study, 6)
    assert child.study_name != "study/confirm"
    assert storage.create_child_study("study/confirm", study, 6).study_name == child.study_name
    other = optuna.storages.RDBStorage(storage.url)  # as the dashboard does, which knows no children
    optuna.delete_study(study_name="study", storage=other)
    other.remove_session()
    other.engine.dispose()
    assert list_studies(storage) == ["study/confirm"]
    assert remove_orphans(storage) == [child.study_name]
    assert [found.study_name for found in optuna.get_all_study_summaries(storage)] == ["study/confirm"]
