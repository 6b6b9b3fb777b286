"""Ownership of a study: one name in two databases, another program's, two creators at once, deletion."""

from pathlib import Path
from typing import Any

import optuna
import pytest

import hpo
from hpo.core.paths import folder_owner, named_folder
from hpo.errors import StudyError
from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import TrialRecord
from hpo.storage.storage import open_storage
from hpo.storage.studies import add_study
from hpo.training import fine_tune
from hpo.workflow.launch import create
from hpo.workflow.stop import delete
from hpo.workflow.studies import list_studies
from tests.workflow.interruption import stop_in_mid_trial


def test_two_databases_with_a_study_of_one_name_share_no_file(
    one_trial: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in_mid_trial(one_trial, monkeypatch)  # leaves a checkpoint and a curve
    restored, load = [], fine_tune.load_checkpoint

    def observed(*given: Any) -> Any:
        restored.append(load(*given))
        return restored[-1]

    monkeypatch.setattr(fine_tune, "load_checkpoint", observed)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    second = hpo.run({**one_trial, "models": one_trial["models"][1:], "first_trials": []}, storage=other)
    assert restored and not any(restored)  # each run started from its first step
    first = hpo.run(one_trial)
    assert any(restored)
    assert first.model_dir == named_folder("reviews") / "final" and second.model_dir != first.model_dir
    depth = {len(result.load_model().bert.encoder.layer) for result in (second, hpo.load("reviews", other))}
    assert depth == {3}
    delete("reviews", other)
    assert not second.model_dir.exists() and first.load_model() is not None
    stranger = first.record.model_copy(update={"identity": second.record.identity})
    with pytest.raises(StudyError, match="is of another study of the name 'reviews'"):
        hpo.Result(first.study, stranger).predict("a great film")


def test_study_deleted_by_optuna_leaves_no_study_and_no_weights(
    one_trial: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = hpo.run(one_trial)
    optuna.delete_study(study_name="reviews", storage=deleted.study._storage)
    assert list_studies() == [] and open_storage().get_all_studies() == []
    again = hpo.run(one_trial)
    assert again.record.identity != deleted.record.identity == folder_owner(named_folder("reviews"))
    assert TrialRecord.of(again.study.trials[0]).attempt == 1
    assert again.model_dir.is_dir() and again.model_dir != deleted.model_dir


def test_one_seed_samples_the_same_in_any_database(
    one_trial: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = one_trial | {"budget": {"max_trials": 2}}
    hpo.run(one_trial, name="earlier")
    here = hpo.run(study, storage=f"sqlite:///{tmp_path / 'empty.db'}").study.trials
    assert [trial.params for trial in hpo.run(study).study.trials] == [trial.params for trial in here]


@pytest.mark.parametrize(
    ("direction", "trials", "message"),
    [
        ("minimize", 0, "its direction is minimize, this study's maximize"),
        ("maximize", 3, "it has 3 trials"),
        ("maximize", 0, None),
    ],
)
def test_study_of_another_program_is_adopted_only_while_it_is_empty(
    direction: str, trials: int, message: str | None, one_trial: dict[str, Any]
) -> None:
    foreign = optuna.create_study(study_name="reviews", storage=open_storage(), direction=direction)
    for _ in range(trials):
        foreign.add_trial(optuna.trial.create_trial(value=0.1))
    if message is None:
        assert len(hpo.run(one_trial).study.trials) == 1
        return
    with pytest.raises(StudyError, match=f"was not created by hpo, and {message}"):
        hpo.run(one_trial)
    assert len(foreign.trials) == trials and StudyRecord.of(foreign) == StudyRecord()


def test_study_created_meanwhile_by_another_process_is_compared(
    one_trial: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add = create._add

    def second(context: Any, *given: Any) -> None:
        changed = context.config.model_copy(update={"seed": 7})
        record = StudyRecord(identity="first", metric="accuracy", config=changed.redacted())
        assert add_study(open_storage(), "reviews", "maximize", record)
        assert add_study(open_storage(), "reviews", "maximize", record)  # a retry after a lost response
        add(context, *given)

    monkeypatch.setattr(create, "_add", second)
    with pytest.raises(StudyError, match="seed: 7 before, 0 now"):
        hpo.run(one_trial)
    study = optuna.load_study(study_name="reviews", storage=open_storage())
    assert StudyRecord.of(study).identity == "first" and not study.trials


def test_study_with_the_name_of_a_confirm_study_is_not_taken_for_it(one_trial: dict[str, Any]) -> None:
    name = "reviews/confirm-0-x1"
    other = hpo.run(one_trial, name=name)
    result = hpo.run(one_trial)
    assert result.winner.scores and hpo.load(name).record == other.record
    assert [study.name for study in list_studies()] == [name, "reviews"]
    hpo.run(one_trial, name="other")
    with pytest.raises(StudyError, match="is part of another study"):
        hpo.run(one_trial, name="other/confirm-0-x1")
