"""Resuming a study, and refusing one that was created from something else."""

import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

import hpo
from hpo.errors import StudyError
from hpo.storage.records.final_model import FinalModel
from hpo.workflow.run import write_reports
from hpo.workflow.studies import best_configuration


def test_finished_study_is_returned_and_more_trials_resume_it(result: hpo.Result, study: dict[str, Any]) -> None:
    before = result.study.trials
    again = hpo.run(study)
    assert again.record == result.record
    more = hpo.run(study, trials=7)
    assert len(more.study.trials) == 7
    assert more.study.trials[:5] == before
    assert hpo.load("reviews").record == more.record
    assert more.record.test.evaluations in (1, 2)  # 1: the same winner, whose final model stays


def test_study_created_from_something_else_raises_with_the_difference(
    result: hpo.Result, study: dict[str, Any], workshop: Path, tmp_path: Path
) -> None:
    study["search_space"]["batch_size"] = [8, 32]
    with pytest.raises(StudyError, match=r"search_space\.batch_size: \[8, 16\] before, \[8, 32\] now"):
        hpo.run(study)
    study["search_space"]["batch_size"] = [8, 16]
    changed = tmp_path / "changed"
    changed.mkdir()
    for split in ("train", "validation", "test"):
        rows = (workshop / "reviews" / f"{split}.csv").read_text().splitlines(keepends=True)
        (changed / f"{split}.csv").write_text("".join(rows[:-2]))
    study["data"] = str(changed)
    with pytest.raises(StudyError, match="data: other rows"):
        hpo.run(study)


def test_changes_of_a_resumed_study_are_applied_or_named(
    one_trial: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    study = one_trial | {"budget": {"max_trials": 2}}
    before = hpo.run(study).study.trials
    capsys.readouterr()
    reordered = {**study["search_space"], "batch_size": [16, 8]}
    changed = study | {"models": study["models"][::-1], "search_space": reordered, "rank": False}
    changed |= {"first_trials": [{"learning_rate": 0.00777, "model": "deep"}], "budget": {"max_trials": 4}}
    result = hpo.run(changed)
    assert [trial.params["learning_rate"] for trial in result.study.trials].count(0.00777) == 1
    assert result.study.trials[:2] == before
    output = capsys.readouterr().out
    assert "rank: True before, False now: has no effect: the models are ranked before the first trial only" in output
    assert "first_trials: " in output and "budget.max_trials: 2 before, 4 now: is applied" in output
    again = hpo.run(changed | {"confirm": {"top": 1, "seeds": 3}})
    assert len(again.winner.scores) == 3 and len(again.study.trials) == 4
    plain = hpo.run(changed | {"confirm": {"top": 1, "seeds": 3}, "refit": "none"})
    assert plain.record.refit == "none" and plain.load_model() is not None
    back = hpo.run(changed | {"confirm": {"top": 1, "seeds": 3}})
    assert back.record.refit == "train+validation"
    assert FinalModel.read(back.model_dir).refit == "train+validation"  # not the model of the run before


def test_added_model_is_named_in_full(one_trial: dict[str, Any], workshop: Path) -> None:
    hpo.run(one_trial)
    added = {"name": one_trial["models"][0], "label": "a-long-name-" * 20}
    with pytest.raises(StudyError, match=f"models: added {added['label']}\n"):
        hpo.run(one_trial | {"models": [*one_trial["models"], added]})
    with pytest.raises(StudyError, match="models: removed shallow\n"):
        hpo.run(one_trial | {"models": one_trial["models"][1:]})


def test_what_other_programs_did_to_a_study_does_not_end_it(one_trial: dict[str, Any]) -> None:
    study = hpo.run(one_trial).study
    for params in ({"model": "gone"}, {"learning_rate": 99.0}, {"epochs": "many"}, {"unknown": 1}):
        study.enqueue_trial(params)
    study.add_trial(optuna.trial.create_trial(value=1.0, params={"x": 1}, distributions={"x": IntDistribution(0, 2)}))
    for child in study._storage.get_all_studies():
        if "/" in child.study_name:
            study._storage.delete_study(child._study_id)
    result = hpo.run(one_trial, trials=8)
    failures = [t.user_attrs["failure"] for t in result.study.trials if t.state == TrialState.FAIL]
    assert len(failures) == 3 and all("it was queued with" in failure for failure in failures)
    assert "learning_rate = 99.0, outside the search space (0.001 to 0.03)" in failures[1]
    shutil.rmtree(result.model_dir)
    assert best_configuration("reviews", None)["trial"] == result.winner.trial
    assert write_reports(result.study).is_file()
