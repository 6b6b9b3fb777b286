"""The model card: true to the result, read by the hub, no folder of the machine, hostile texts escape_formula."""

import re
from typing import Any

import pytest

from hpo.config.yaml import parse_yaml
from hpo.reporting.anonymize import anonymize_command, anonymize_name
from hpo.reporting.card import model_card
from hpo.reporting.markdown import code_block, escape, table
from tests.reporting.studies import make_study


def make_card(**changes: Any) -> str:
    attrs = make_study().user_attrs
    config, result = {**attrs["config"], **changes.pop("config", {})}, {**attrs["result"], **changes.pop("result", {})}
    return model_card(config, result, attrs["data"], attrs["versions"])


def block(card: str) -> dict[str, Any]:
    return parse_yaml(card.split("---\n")[1], "card")


def test_tells_scores_parameters_data_versions_and_the_command() -> None:
    card = make_card()
    for told in (
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
        assert told in card


def test_metadata_block_is_what_the_hub_reads() -> None:
    ModelCardData = pytest.importorskip("huggingface_hub").ModelCardData
    found = block(make_card())
    assert found["pipeline_tag"] == "text-classification" and "license" not in found and "base_model" not in found
    scores = ModelCardData(**found).eval_results
    assert [(score.metric_type, score.metric_value) for score in scores] == [("accuracy", 0.7123), ("loss", 0.81)]


def test_base_model_and_datasets_are_named_only_where_they_are_on_the_hub() -> None:
    attrs = make_study().user_attrs
    params = {**attrs["result"]["winner"]["params"], "model": "google/electra-small-discriminator"}
    config = {"models": [{"name": "google/electra-small-discriminator"}], "data": {"path": "PolyAI/banking77"}}
    found = block(make_card(config=config, result={"winner": {**attrs["result"]["winner"], "params": params}}))
    assert found["base_model"] == "google/electra-small-discriminator"
    assert found["datasets"] == ["PolyAI/banking77"]


def test_no_folder_of_the_machine_and_no_markup_of_others() -> None:
    card = make_card()
    assert "/somewhere" not in card
    body = card.split("---\n", 2)[2]
    assert not re.search(r"<\w", body)
    assert "&lt;img src=x onerror=alert(2)&gt;" in body


def test_without_test_split_it_says_that_the_score_is_optimistic() -> None:
    card = make_card(result={"test": None, "baseline": None, "confusion": None})
    assert "no test split" in card and "model-index" not in block(card)


def test_literal_leaves_nothing_to_markdown() -> None:
    assert escape("a\n# b | `c` [d](javascript:e)") == r"a \# b \| \`c\` \[d\](javascript:e)"
    assert table(("a",), [("x|y",)]).splitlines()[-1] == r"| x\|y |"
    assert code_block("```") == "````\n```\n````"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("hpo run /a/b.yaml --set data.path=/c/d", "hpo run b.yaml --set data.path=d"),
        (
            "hpo run a.yaml --storage postgresql+psycopg://me:p@ss@db/hpo",
            "--storage postgresql+psycopg://me:***@db/hpo",
        ),
        ("hpo run a.yaml --storage sqlite:////home/me/hpo.db", "--storage sqlite:///hpo.db"),
        ("hpo run 'my study.yaml'", "hpo run 'my study.yaml'"),
        ("hpo run 'unclosed", "hpo run"),
    ],
)
def test_commands_lose_folders_and_passwords(given: str, told: str) -> None:
    assert told in anonymize_command(given)
    assert "p@ss" not in anonymize_command(given) and "/home" not in anonymize_command(given)


def test_names_lose_folders() -> None:
    assert [anonymize_name(name) for name in ("/a/b", "../b", "~/b", "org/b")] == ["b", "b", "b", "org/b"]
