"""A whole search, in this process: from a mapping to a final model, and everything a person can ask of it."""

import csv
import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import hpo
from hpo.config.load import load_config
from hpo.core.paths import run_folder
from hpo.errors import ConfigError, DataError, StorageError, StudyError
from hpo.storage.records.final_model import FinalModel
from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import TrialRecord
from hpo.storage.status import read_status
from hpo.storage.storage import open_storage
from hpo.tasks.text.text_classification import TextClassification
from hpo.workflow.launch.supervisor import Supervisor
from hpo.workflow.replay import replay
from hpo.workflow.result import Predictor
from hpo.workflow.retrain import retrain
from hpo.workflow.studies import best_configuration
from hpo.workflow.worker import loop
from hpo.workflow.worker.stages import confirm_jobs


@pytest.fixture
def result(study: dict[str, Any]) -> hpo.Result:
    return hpo.run(study)


def test_a_search_ends_with_a_model_that_plain_transformers_load(result: hpo.Result) -> None:
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


def test_the_workers_of_a_new_study_begin_before_its_data_is_read(
    study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def prepare(*_: Any) -> None:
        begun.append("reading")
        raise DataError("a broken row")

    monkeypatch.setattr(Supervisor, "warm_up", lambda self: begun.append("workers"))
    monkeypatch.setattr(Supervisor, "close", lambda self: begun.append("ended"))
    monkeypatch.setattr(TextClassification, "prepare", prepare)
    with pytest.raises(DataError, match="a broken row"):
        hpo.run(study | {"backend": "local"})
    assert begun == ["workers", "reading", "ended"]


@pytest.mark.slow
def test_a_waiting_worker_has_imported_what_reading_a_model_takes() -> None:
    script = """
import sys
from hpo.workflow.worker import process
late = {"evaluate", "transformers.modeling_utils"}
assert not late & sys.modules.keys()
process.main()
print(*sorted(late & sys.modules.keys()))
"""
    # Its specification never comes: the parent has found a mistake.
    done = subprocess.run(
        [sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["evaluate", "transformers.modeling_utils"]


def test_everything_is_recorded(result: hpo.Result, study: dict[str, Any]) -> None:
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

    folder = run_folder("reviews")
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


def test_a_finished_study_is_shown_and_more_trials_go_on_with_it(result: hpo.Result, study: dict[str, Any]) -> None:
    before = result.study.trials
    again = hpo.run(study)
    assert again.record == result.record
    more = hpo.run(study, trials=7)
    assert len(more.study.trials) == 7
    assert more.study.trials[:5] == before
    assert hpo.load("reviews").record == more.record
    assert more.record.test.evaluations in (1, 2)  # 1: the same winner, whose final model stays


def test_a_study_made_from_something_else_is_refused_with_the_difference(
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


def test_a_trial_is_replayed_to_the_same_curve(result: hpo.Result) -> None:
    found = replay(result.study, 0)
    assert found.replayed == found.recorded
    assert found.steps == [1, 2, 3]
    assert found.not_applied == []


def test_another_trial_can_be_trained_to_a_model_and_test_is_counted(result: hpo.Result) -> None:
    other = next(t.number for t in result.study.trials if t.number != result.winner.trial)
    record = retrain(result.study, other)
    assert record.test is not None and record.test.evaluations == 2
    assert Predictor(record.model_dir).predict(["a great film"])[0]["label"] in ("positive", "negative")
    assert hpo.load("reviews").model_dir == result.model_dir
    best = best_configuration(None, None)
    assert best["trial"] == result.winner.trial


def test_refit_none_keeps_the_validated_checkpoint(study: dict[str, Any]) -> None:
    result = hpo.run({**study, "refit": "none"})
    assert result.metrics["accuracy"] > 0.9
    assert result.model_dir.is_dir()
    assert not (run_folder("reviews") / "confirmed").exists()


@pytest.mark.parametrize("refit", ["none", pytest.param("train+validation", marks=pytest.mark.slow)])
def test_an_adapter_is_merged_and_kept_by_itself_where_asked(study: dict[str, Any], refit: str) -> None:
    from safetensors import safe_open

    study["search_space"] |= {"peft": ["lora", "none"], "lora_r": {"choices": [2, 4], "when": {"peft": "lora"}}}
    study |= {"models": study["models"][1:], "first_trials": [{"peft": "lora", "learning_rate": 2e-2}]}
    study |= {"budget": {"max_trials": 1}, "confirm": {"top": 1, "seeds": 1}, "refit": refit, "keep_adapter": True}
    result = hpo.run(study)
    assert result.params["peft"] == "lora"
    with safe_open(result.model_dir / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "lora" in name]  # noqa: SIM118
    with safe_open(result.model_dir / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert any(".lora_A." in name for name in file.keys())  # noqa: SIM118
    assert result.predict(["the film was great"])[0]["label"] in ("positive", "negative")
    assert "adapter/" in (result.model_dir / "README.md").read_text()


def test_hours_end_the_search_in_time_to_finish(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds_left(search: optuna.Study) -> float:
        return 0.0 if len([t for t in search.trials if t.state == TrialState.COMPLETE]) >= 2 else 1e6

    monkeypatch.setattr(loop, "seconds_left", seconds_left)
    study["first_trials"] = [{"learning_rate": rate} for rate in (1e-2, 5e-3, 2e-3)]
    result = hpo.run({**study, "budget": {"max_trials": 400, "max_hours": 1}, "pruner": "none"})
    states = [trial.state for trial in result.study.trials]
    assert states.count(TrialState.COMPLETE) == 2
    assert states.count(TrialState.PRUNED) == 4  # what still waited is told so, and not begun
    assert len(result.record.confirmed) == 1  # as few as there must be: no hours are left
    assert read_status(open_storage(), "reviews").hours_run > 0


def test_conditions_and_fixed_values_are_sampled_as_written(study: dict[str, Any]) -> None:
    study["search_space"] |= {
        "lr_scheduler": ["linear", "constant_with_warmup"],
        "warmup_ratio": {"low": 0.1, "high": 0.4, "when": {"lr_scheduler": ["constant_with_warmup"]}},
        "weight_decay": 0.05,
    }
    result = hpo.run({**study, "budget": {"max_trials": 6}, "pruner": "none"})
    for trial in result.study.trials:
        assert ("warmup_ratio" in trial.params) == (trial.params["lr_scheduler"] == "constant_with_warmup")
        assert TrialRecord.of(trial).params["weight_decay"] == 0.05
    jobs = confirm_jobs(result.study, StudyRecord.of(result.study).study_config)
    assert len({job.trial for job in jobs}) == 2


def test_a_diverging_trial_costs_that_trial_only(study: dict[str, Any]) -> None:
    study["search_space"]["learning_rate"] = [1e-2, 1e30]
    study["first_trials"] = [{"learning_rate": 1e30}, {"learning_rate": 1e-2}]
    result = hpo.run({**study, "budget": {"max_trials": 4}})
    failed = [t for t in result.study.trials if t.state == TrialState.FAIL]
    assert failed
    assert all(t.user_attrs["failure"].startswith("Diverged") for t in failed)
    assert result.params["learning_rate"] == 1e-2


def test_first_trials_outside_the_space_are_refused_before_anything_runs(study: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"first_trials\[0\]\.learning_rate: 0\.5 is outside"):
        hpo.run({**study, "first_trials": [{"learning_rate": 0.5}]})
    with pytest.raises(ConfigError, match=r"first_trials\[0\].*9 is more than the 1 layers"):
        hpo.run({**study, "first_trials": [{"frozen_layers": 9}]})


def test_optunas_samplers_and_pruners_are_taken_by_name(study: dict[str, Any]) -> None:
    result = hpo.run({**study, "sampler": "RandomSampler", "pruner": {"name": "MedianPruner", "n_startup_trials": 1}})
    assert len(result.study.trials) == 5
    with pytest.raises(ConfigError, match="Did you mean 'TPESampler'"):
        hpo.run({**study, "name": "other", "sampler": "TPSampler"})


def test_a_full_disk_pauses_the_study_and_it_goes_on(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from hpo.training import fine_tune

    def full(*_: Any) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(fine_tune, "save_checkpoint", full)
        patched.setattr(fine_tune.FineTuning, "_save_if_due", fine_tune.FineTuning.save)
        with pytest.raises(StorageError, match="The disk is full"):
            hpo.run(study)
    result = hpo.run(study)
    assert len(result.study.trials) == 5
    assert not [t for t in result.study.trials if t.state == TrialState.FAIL]
