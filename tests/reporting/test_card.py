"""The model card: it matches the result, the hub reads it, it has no local folder, and all text is escaped."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from hpo.config.yaml import parse_yaml
from hpo.reporting.card import model_card
from hpo.storage.records.study import StudyRecord
from tests.reporting.studies import make_study

NOTHING: Mapping[str, Any] = MappingProxyType({})


def make_card(config: Mapping[str, Any] = NOTHING, result: Mapping[str, Any] = NOTHING) -> str:
    record = StudyRecord.of(make_study())
    assert record.result is not None
    return model_card({**record.config, **config}, record.result.model_copy(update=result))


def block(card: str) -> dict[str, Any]:
    return parse_yaml(card.split("---\n")[1], "card")


def test_has_scores_parameters_data_versions_and_command() -> None:
    card = make_card()
    for part in (
        "| this model, accuracy | test | 0.712 | 0.684 to 0.740 |",
        "TF-IDF + logistic regression",
        "evaluated 2 times",
        "4,000 train",
        "c0ffee12",
        "torch 2.13.0",
        "hpo run quick.yaml --trials 16",
        "learning_rate",
        "7 in the search, 101, 102 to confirm",
    ):
        assert part in card


def test_metadata_is_read_by_the_hub() -> None:
    ModelCardData = pytest.importorskip("huggingface_hub").ModelCardData
    found = block(make_card())
    assert found["pipeline_tag"] == "text-classification" and "license" not in found and "base_model" not in found
    scores = ModelCardData(**found).eval_results
    assert [(score.metric_type, score.metric_value) for score in scores] == [("accuracy", 0.7123), ("loss", 0.81)]


def test_only_hub_models_and_datasets_are_in_the_metadata() -> None:
    result = StudyRecord.of(make_study()).result
    assert result is not None
    params = {**result.winner.params, "model": "google/electra-small-discriminator"}
    config = {"models": [{"name": "google/electra-small-discriminator"}], "data": {"path": "PolyAI/banking77"}}
    found = block(make_card(config=config, result={"winner": result.winner.model_copy(update={"params": params})}))
    assert found["base_model"] == "google/electra-small-discriminator"
    assert found["datasets"] == ["PolyAI/banking77"]


def test_has_no_folder_of_the_machine_and_no_foreign_markup() -> None:
    card = make_card()
    assert "/somewhere" not in card
    body = card.split("---\n", 2)[2]
    assert not re.search(r"<\w", body)
    assert "&lt;img src=x onerror=alert(2)&gt;" in body


def test_without_test_split_the_score_is_called_optimistic() -> None:
    card = make_card(result={"test": None, "baseline": None, "confusion": None})
    assert "no test split" in card and "model-index" not in block(card)
