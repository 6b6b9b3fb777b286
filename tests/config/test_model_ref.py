"""Candidate models and their labels."""

from pathlib import Path

import pytest

from hpo.config.model_ref import ModelRef, label_models
from hpo.errors import ConfigError


def test_labels_are_short_and_unique(tmp_path: Path) -> None:
    refs = [
        {"name": "org/bert"},
        {"name": str(tmp_path / "one" / "bert")},
        {"name": str(tmp_path / "two" / "bert")},
        {"name": "org/bert", "revision": "v2"},
        {"name": "org/bert", "subfolder": "small"},
        {"name": "org/other", "label": "mine"},
    ]
    labels = [ref["label"] for ref in label_models(refs)]
    assert labels == ["org/bert", "bert", "two/bert", "org/bert@v2", "org/bert/small", "mine"]
    assert "label" not in refs[0]  # the input is not modified


@pytest.mark.parametrize(
    ("refs", "label"),
    [
        ([{"name": "org/a", "label": "mine"}, {"name": "org/b", "label": "mine"}], "mine"),
        ([{"name": "org/a"}, {"name": "org/a"}], "org/a"),
        ([{"name": "/one/bert"}] * 9, "/one/bert"),
    ],
)
def test_model_that_is_listed_twice_raises(refs: list[dict[str, str]], label: str) -> None:
    with pytest.raises(ConfigError, match=f"models: '{label}' is listed twice"):
        label_models(refs)


def test_local_models_are_folders(tmp_path: Path) -> None:
    assert ModelRef(name=str(tmp_path)).is_local
    assert not ModelRef(name="org/bert").is_local
