"""The records: what is written is read back, short values as user attributes, long ones as system attributes."""

import math
from pathlib import Path

import optuna
import pytest

from hpo.core.paths import named_folder
from hpo.errors import StudyError
from hpo.storage.records import study as study_records
from hpo.storage.records import trial as trial_records
from hpo.storage.records.final_model import CARD, ConfirmedTrial, DataRecord, FinalModel, FinalScores
from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import CurvePoint, TrialRecord


def final_model(folder: Path) -> FinalModel:
    winner = ConfirmedTrial(trial=3, params={"model": "a"}, search_value=0.9, values={1: 0.8, 2: 0.7})
    return FinalModel(
        study="s",
        task="text-classification",
        metric="accuracy",
        winner=winner,
        confirmed=(winner,),
        refit="train",
        model_dir=folder,
        command="hpo retrain s --trial 3",
        data=DataRecord(sizes={"train": 3}, labels=("a", "b"), columns={"text": "t"}, fingerprint="f"),
        max_length=128,
        test=FinalScores(metrics={"accuracy": 0.75, "loss": 1.0}, interval=(0.7, 0.8), rows=9),
    )


def test_trial_record_round_trip_splits_short_and_long_values() -> None:
    study = optuna.create_study()
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    curve = (CurvePoint(step=1, epoch=0.5, train_loss=0.4, seconds=2.0),)
    written = TrialRecord(seed=3, params={"x": 0.5, "model": "a"}, curve=curve, metrics={"loss": float("inf")})
    written.save(trial)
    frozen = study.trials[0]
    assert TrialRecord.of(frozen) == written
    assert set(frozen.user_attrs) == {"seed", "metrics"} and set(frozen.system_attrs) == {"hpo:params", "hpo:curve"}
    copy = optuna.trial.create_trial(value=1.0, **TrialRecord.of(frozen).attributes())
    assert TrialRecord.of(copy) == written


def test_params_of_a_trial_without_a_plan_are_the_sampled_ones() -> None:
    study = optuna.create_study()
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    record = TrialRecord.of(study.trials[0])
    assert record.params == trial.params and "params" not in record.model_fields_set
    assert record.attributes() == {"user_attrs": {}, "system_attrs": {}}


def test_record_of_a_copy_omits_what_only_its_own_study_records() -> None:
    copy = TrialRecord(worker="3", attempt=2, origin="first trial", seed=4, params={"a": 1}).copied("s #7")
    assert copy.attributes() == {
        "user_attrs": {"copied_from": "s #7", "seed": 4},
        "system_attrs": {"hpo:params": {"a": 1}},
    }


def test_study_record_round_trip_also_after_its_home_was_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()
    assert StudyRecord.of(study) == StudyRecord()
    result = final_model(named_folder(study.study_name) / "final")
    written = StudyRecord(metric="accuracy", result=result, config={"name": "s"})
    written.save(study)
    StudyRecord(source_studies=("old",)).save(study)
    assert StudyRecord.of(study) == written.model_copy(update={"source_studies": ("old",)})
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "moved"))
    found = StudyRecord.of(study).result
    assert found is not None and found.model_dir == tmp_path / "moved" / "runs" / study.study_name / "final"
    StudyRecord(result=None).save(study)
    assert StudyRecord.of(study).result is None


def test_final_model_round_trip_through_a_folder_that_was_moved(tmp_path: Path) -> None:
    written = final_model(tmp_path / "before")
    written.write(tmp_path)
    read = FinalModel.read(tmp_path)
    assert read == written.model_copy(update={"model_dir": tmp_path}) and read.value == 0.75
    assert read.winner.mean == pytest.approx(0.75) and read.winner.std == pytest.approx(0.05 * 2**0.5)
    undefined = written.model_copy(update={"seconds": {"search": float("nan")}})
    undefined.write(tmp_path)
    assert math.isnan(FinalModel.read(tmp_path).seconds["search"])
    with pytest.raises(StudyError, match="no final model at"):
        FinalModel.read(tmp_path / "missing")


def saved(folder: Path) -> FinalModel:
    """Return the record of a folder with the files of a model."""
    for name, text in {"config.json": "{}", "model.safetensors": "weights", "adapter/a.bin": "a", CARD: "card"}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return final_model(folder).write(folder)


def test_files_of_a_final_model_are_checked_but_not_its_card(tmp_path: Path) -> None:
    written = saved(tmp_path)
    (tmp_path / CARD).write_text("edited")
    (tmp_path / "added.txt").write_text("by the user")
    read = FinalModel.read(tmp_path)
    read.check_files()
    assert read == written and set(read.files) == {"config.json", "model.safetensors", "adapter/a.bin"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", None, "model.safetensors is missing"),
        ("model.safetensors", "weigh", "model.safetensors has 5 bytes instead of 7"),
        ("model.safetensors", "WEIGHTS", "model.safetensors has other content"),
        ("config.json", None, "config.json is missing"),
        ("config.json", "[]", "config.json has other content"),
        ("adapter/a.bin", "", "adapter/a.bin has 0 bytes instead of 1"),
        ("hpo.json", None, "There is no final model"),
        ("hpo.json", '{"study": "s",', "hpo.json cannot be read"),
        ("hpo.json", "[1]", "hpo.json cannot be read .it holds list"),
        ("hpo.json", "{}", "hpo.json cannot be read .its key 'study'"),
        ("hpo.json", "[" * 100_000, "hpo.json cannot be read"),
        ("hpo.json", "\udc80", "hpo.json cannot be read"),
    ],
)
def test_damaged_final_model_raises_with_the_file(tmp_path: Path, file: str, content: str | None, message: str) -> None:
    saved(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(StudyError, match=f"{message}.*hpo retrain"):
        FinalModel.read(tmp_path).check_files()


def test_unconfirmed_trial_has_the_mean_of_the_search() -> None:
    trial = ConfirmedTrial(trial=0, params={}, search_value=0.5)
    assert (trial.mean, trial.std) == (0.5, 0.0)


def test_keys_for_sql_are_names_of_fields() -> None:
    keys = {value for name, value in vars(trial_records).items() if name.isupper() and name != "SYSTEM_PREFIX"}
    assert len(keys) == 7 and keys <= set(TrialRecord.model_fields) and study_records.METRIC in StudyRecord.model_fields
