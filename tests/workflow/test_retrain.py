"""Training a chosen trial to a final model."""

import pytest

import hpo
from hpo.storage.records.final_model import FinalModel
from hpo.workflow.predict import Predictor
from hpo.workflow.studies import best_configuration


def test_retraining_another_trial_counts_the_evaluation_on_test(result: hpo.Result) -> None:
    other = next(t.number for t in result.study.trials if t.number != result.winner.trial)
    record = hpo.retrain(trial=other)
    assert record.test is not None and record.test.evaluations == 2
    assert Predictor(record.model_dir).predict(["a great film"])[0]["label"] in ("positive", "negative")
    assert hpo.load("reviews").model_dir == result.model_dir
    assert FinalModel.read(record.model_dir) == record
    assert (record.winner.trial, record.winner.values) == (
        other,
        {},
    ) and record.winner.mean == record.winner.search_value
    best = best_configuration(None, None)
    assert best["trial"] == result.winner.trial


def test_retraining_the_winner_replaces_the_damaged_final_model_and_the_result(result: hpo.Result) -> None:
    (result.model_dir / "config.json").unlink()
    with pytest.raises(hpo.StudyError, match=r"config.json is missing. `hpo retrain reviews"):
        Predictor(result.model_dir)
    record = hpo.retrain()
    Predictor(result.model_dir)
    assert record.confirmed == result.record.confirmed and record.model_dir == result.model_dir
    assert record.test is not None and record.test.evaluations == 2
    assert hpo.load("reviews").record == record == FinalModel.read(result.model_dir)
