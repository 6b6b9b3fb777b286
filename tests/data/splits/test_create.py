"""Splits that are made: disjoint, stratified, deterministic, copies together."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.data.splits.create import create_splits, normalize_text, text_keys


def some_rows(seed: int = 0, rows: int = 1000) -> Dataset:
    """Rows of five classes, from half of them down to eight rows; one text in six stands more than once."""
    random = np.random.default_rng(seed)
    label_of = random.choice(5, rows * 3, p=[0.5, 0.3, 0.15, 0.042, 0.008])
    numbers = random.integers(rows * 3, size=rows)
    texts = [f"Text {number}" + " " * int(random.integers(3)) for number in numbers]
    labels = label_of[numbers].tolist()
    return Dataset.from_dict({"text": texts, "label": labels})


def split(rows: Dataset, seed: int = 0, **config: Any) -> dict[str, Dataset]:
    return create_splits({"train": rows}, DataConfig(path="d.csv", **config), seed)[0]


@pytest.mark.parametrize("seed", range(5))
def test_made_splits_are_disjoint_complete_and_of_the_sizes_asked_for(seed: int) -> None:
    rows = some_rows(seed)
    splits = split(rows, seed, test_size=0.2, validation_size=0.1)
    keys = {name: set(text_keys(part)) for name, part in splits.items()}
    assert not keys["train"] & keys["validation"] and not keys["train"] & keys["test"]
    assert not keys["validation"] & keys["test"]
    texts = [text for part in splits.values() for text in part["text"]]
    assert Counter(texts) == Counter(rows["text"][:])
    assert len(splits["test"]) == pytest.approx(200, abs=3)
    assert len(splits["validation"]) == pytest.approx(100, abs=3)


def test_made_splits_are_stratified() -> None:
    rows = some_rows()
    splits = split(rows)
    whole = Counter(rows["label"])
    for name in ("validation", "test"):
        share = Counter(splits[name]["label"])
        assert set(share) == set(whole)  # even the class of eight rows
        for label, count in whole.items():
            assert share[label] == pytest.approx(0.15 * count, abs=2)


def test_the_seed_decides() -> None:
    rows = some_rows()
    first, again, other = (split(rows, seed)["test"].to_dict() for seed in (1, 1, 2))
    assert first == again != other


def test_only_what_is_missing_is_made() -> None:
    given = {"train": some_rows(0, 100), "test": Dataset.from_dict({"text": ["one", "two"], "label": [0, 1]})}
    splits, notes = create_splits(given, DataConfig(path="d.csv"), 0)
    assert splits["test"].to_dict() == given["test"].to_dict()
    assert notes == [
        f"validation ({len(splits['validation'])} rows) taken from 100 training rows, stratified by label, seed 0"
    ]


@pytest.mark.parametrize(
    ("texts", "train", "validation", "test"),
    [
        (["a", "b", "c"] * 2, 2, 2, 2),  # three texts twice over: one for each side
        (["a", "b", "c", "d"], 2, 1, 1),
        (["a"] * 8 + ["b", "c"], 8, 1, 1),  # a text that is most of the class cannot be shared
    ],
)
def test_small_classes_give_each_side_a_text(texts: list[str], train: int, validation: int, test: int) -> None:
    splits = split(Dataset.from_dict({"text": texts, "label": [0] * len(texts)}))
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [train, validation, test]


def test_what_counts_as_the_same_text() -> None:
    assert normalize_text("  Hello\n WORLD ") == normalize_text("hello world")
    assert normalize_text("STRASSE") == normalize_text("straße")
    assert normalize_text("ab", "c") != normalize_text("a", "bc")


def test_data_floor_stays_light(tmp_path: Path) -> None:
    """Preparing data loads neither torch nor transformers: a mistake in it is told within a second."""
    import subprocess
    import sys

    rows = "".join(f"text {place},{'yes' if place % 2 else 'no'}\n" for place in range(40))
    (tmp_path / "d.csv").write_text("text,label\n" + rows)
    program = (
        "import sys; from hpo.config.study import DataConfig; from hpo.tasks.registry import get_task\n"
        f"task = get_task('text-classification'); task.prepare(DataConfig(path={str(tmp_path)!r}), 0)\n"
        "task.scorer('f1')\n"
        "print(*sorted({'torch', 'transformers', 'evaluate', 'sklearn', 'optuna'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
