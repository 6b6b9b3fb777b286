"""A complete study in this process: from a mapping to a final model."""

import csv
from typing import Any

import pytest
from optuna.trial import TrialState

import hpo
from hpo.config.load import load_config
from hpo.core.paths import named_folder
from hpo.errors import ConfigError, DataError, OutOfMemory, StudyError
from hpo.storage.budget import set_phase
from hpo.storage.records.final_model import FinalModel
from hpo.storage.records.trial import TrialRecord
from hpo.storage.status import read_status
from hpo.storage.storage import open_storage
from hpo.tasks.text.text_classification import TextClassification
from hpo.workflow.launch.supervisor import Supervisor


def test_final_model_is_loaded_by_plain_transformers(result: hpo.Result) -> None:
    from transformers import AutoModelForSequenceClassification, pipeline

    assert result.metrics["accuracy"] > 0.9  # one word decides: anything that trains learns it
    assert result.winner.seeds == (1, 2)
    assert result.params == result.winner.params
    model = AutoModelForSequenceClassification.from_pretrained(result.model_dir)
    assert model.config.id2label == {0: "negative", 1: "positive"}
    texts = ["the film was great", "the film was awful"]
    ours = result.predict(texts)
    theirs = pipeline("text-classification", model=str(result.model_dir))(texts)
    assert [row["label"] for row in ours] == [row["label"] for row in theirs] == ["positive", "negative"]
    assert [row["score"] for row in ours] == pytest.approx([row["score"] for row in theirs], rel=1e-4)


def test_workers_of_a_new_study_start_before_its_data_is_read(
    study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def prepare(*_: Any) -> None:
        events.append("reading")
        raise DataError("a broken row")

    monkeypatch.setattr(Supervisor, "warm_up", lambda self: events.append("workers"))
    monkeypatch.setattr(Supervisor, "close", lambda self: events.append("ended"))
    monkeypatch.setattr(TextClassification, "prepare", prepare)
    with pytest.raises(DataError, match="a broken row"):
        hpo.run(study | {"backend": "local"})
    assert events == ["workers", "reading", "ended"]


def test_study_trials_and_final_model_are_recorded(result: hpo.Result, study: dict[str, Any]) -> None:
    trials = result.study.trials
    assert [trial.number for trial in trials] == list(range(5))
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    assert {trial.params["model"] for trial in trials[:2]} == {"shallow", "deep"}  # each is tried first
    for trial in trials:
        record = TrialRecord.of(trial)
        recorded = {"rungs", "frozen_layers", "metrics", "seconds", "seed", "gap", "params", "execution", "curve"}
        assert recorded <= record.model_fields_set
        assert record.frozen_layers.split(" of ")[1] == {"shallow": "1", "deep": "3"}[trial.params["model"]]
        assert len(trial.intermediate_values) == len(record.curve)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert all(trial.value == trial.intermediate_values[trial.last_step] for trial in complete)

    folder = named_folder("reviews")
    assert (folder / "report.html").is_file()
    assert not list(folder.glob("checkpoints/*"))  # nothing large is left behind
    with (folder / "trials.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    final = FinalModel.read(result.model_dir)
    assert final == result.record and final.test is not None and final.confusion is not None
    assert final.test.evaluations == 1 and final.test.interval is not None
    assert final.test.interval[0] <= result.metrics["accuracy"] <= final.test.interval[1]
    assert sum(map(sum, final.confusion.matrix)) == 32
    status = read_status(open_storage(), "reviews")
    assert (status.phase, status.confirm_done, status.confirm_total) == ("finished", 4, 4)
    assert load_config(folder / "study.yaml").identity() == load_config(study, ["metric=accuracy"]).identity()


def test_first_trials_outside_the_space_raise_before_training(study: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"first_trials\[0\]\.learning_rate: 0\.5 is outside"):
        hpo.run({**study, "first_trials": [{"learning_rate": 0.5}]})
    with pytest.raises(ConfigError, match=r"first_trials\[0\].*9 is more than the 1 layers"):
        hpo.run({**study, "first_trials": [{"frozen_layers": 9}]})


def test_samplers_and_pruners_of_optuna_by_name(study: dict[str, Any]) -> None:
    result = hpo.run({**study, "sampler": "RandomSampler", "pruner": {"name": "MedianPruner", "n_startup_trials": 1}})
    assert len(result.study.trials) == 5
    with pytest.raises(ConfigError, match="Did you mean 'TPESampler'"):
        hpo.run({**study, "name": "other", "sampler": "TPSampler"})


@pytest.mark.parametrize(("sampler", "most"), [("freeze_thaw", 4), ("GridSampler", 6)])
def test_search_of_a_finite_space_ends_when_all_was_tried(study: dict[str, Any], sampler: str, most: int) -> None:
    space = {"learning_rate": [1e-3, 1e-2], "epochs": 1}
    given = {**study, "first_trials": (), "search_space": space, "rank": False, "sampler": sampler}
    result = hpo.run({**given, "pruner": "HyperbandPruner", "budget": {"max_trials": 9}})
    trials = result.study.trials
    assert len({tuple(sorted(trial.params.items())) for trial in trials}) == 4
    assert len(trials) <= most  # Grid search does not count the two first trials
    assert result.winner.scores


def test_failed_final_training_is_run_again_by_the_same_command(
    study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpo.workflow.worker import loop

    def fail(*_: Any) -> None:
        raise OutOfMemory("not even one example fits")

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_final_model", fail)
        with pytest.raises(StudyError, match="not even one example fits"):
            hpo.run(study)
    status = hpo.status(study["name"])
    assert status.phase == "failed" and "not even one example fits" in str(status.reason)
    result = hpo.run(study)
    assert hpo.status(study["name"]).phase == "finished" and result.model_dir.is_dir()


def test_search_whose_trials_were_all_pruned_ends_with_a_model(study: dict[str, Any]) -> None:
    """Hours may end before the first trial is complete: confirming trains the best of the pruned ones fully."""
    pruner = {"name": "ThresholdPruner", "lower": 2.0}
    result = hpo.run({**study, "pruner": pruner, "budget": {"max_trials": 2}, "first_trials": [{"epochs": 3}]})
    assert {trial.state for trial in result.study.trials} == {TrialState.PRUNED}
    assert result.model_dir.is_dir() and result.winner.scores


def test_run_that_was_killed_before_its_reports_writes_them(study: dict[str, Any]) -> None:
    result = hpo.run(study)
    folder = result.model_dir.parent
    (folder / "report.html").unlink()
    set_phase(result.study, "stopped")
    hpo.run(study)
    assert (folder / "report.html").is_file() and hpo.status(study["name"]).phase == "finished"
