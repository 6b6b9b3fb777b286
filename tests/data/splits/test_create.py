"""Created splits: disjoint, stratified, deterministic, duplicates together."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.data.splits.create import create_splits, normalize_text, text_keys


def some_rows(seed: int = 0, rows: int = 1000) -> Dataset:
    """Return rows of five classes, the largest half of them, the smallest eight; one text in six is repeated."""
    random = np.random.default_rng(seed)
    label_of = random.choice(5, rows * 3, p=[0.5, 0.3, 0.15, 0.042, 0.008])
    numbers = random.integers(rows * 3, size=rows)
    texts = [f"Text {number}" + " " * int(random.integers(3)) for number in numbers]
    labels = label_of[numbers].tolist()
    return Dataset.from_dict({"text": texts, "label": labels})


def split(rows: Dataset, seed: int = 0, **config: Any) -> dict[str, Dataset]:
    return create_splits({"train": rows}, DataConfig(path="d.csv", **config), seed)[0]


@pytest.mark.parametrize("seed", range(5))
def test_created_splits_are_disjoint_and_have_the_requested_sizes(seed: int) -> None:
    rows = some_rows(seed)
    splits = split(rows, seed, test_size=0.2, validation_size=0.1)
    keys = {name: set(text_keys(part)) for name, part in splits.items()}
    assert not keys["train"] & keys["validation"] and not keys["train"] & keys["test"]
    assert not keys["validation"] & keys["test"]
    texts = [text for part in splits.values() for text in part["text"]]
    assert Counter(texts) == Counter(rows["text"][:])
    assert len(splits["test"]) == pytest.approx(200, abs=3)
    assert len(splits["validation"]) == pytest.approx(100, abs=3)


def test_created_splits_are_stratified() -> None:
    rows = some_rows()
    splits = split(rows)
    total = Counter(rows["label"])
    for name in ("validation", "test"):
        share = Counter(splits[name]["label"])
        assert set(share) == set(total)  # even the class of eight rows
        for label, count in total.items():
            assert share[label] == pytest.approx(0.15 * count, abs=2)


def test_splits_are_deterministic_for_a_seed() -> None:
    rows = some_rows()
    first, again, other = (split(rows, seed)["test"].to_dict() for seed in (1, 1, 2))
    assert first == again != other


def test_given_splits_are_kept() -> None:
    given = {"train": some_rows(0, 100), "test": Dataset.from_dict({"text": ["one", "two"], "label": [0, 1]})}
    splits, notes = create_splits(given, DataConfig(path="d.csv"), 0)
    assert splits["test"].to_dict() == given["test"].to_dict()
    assert notes == [
        f"validation ({len(splits['validation'])} rows) taken from 100 training rows, stratified by label, seed 0"
    ]


def test_overlap_is_dropped_from_the_split_used_earlier() -> None:
    given = {
        "train": Dataset.from_dict({"text": ["a", "B", "c"], "label": [0, 1, 0]}),
        "validation": Dataset.from_dict({"text": ["b", "d"], "label": [1, 0]}),
        "test": Dataset.from_dict({"text": ["D"], "label": [0]}),
    }
    splits, notes = create_splits(given, DataConfig(path="d.csv"), 0)
    assert {split: rows["text"][:] for split, rows in splits.items()} == {
        "train": ["a", "c"],
        "validation": ["b"],
        "test": ["D"],
    }
    assert [note.split(" dropped")[0] for note in notes] == ["1 validation row", "1 training row"]


def test_normalize_text_ignores_case_and_white_space() -> None:
    assert normalize_text("  Hello\n WORLD ") == normalize_text("hello world")
    assert normalize_text("STRASSE") == normalize_text("straße")
    assert normalize_text("ab", "c") != normalize_text("a", "bc")


def test_preparing_data_imports_nothing_heavy(tmp_path: Path) -> None:
    """Preparing data imports neither torch nor transformers, so a mistake is reported within a second."""
    import subprocess
    import sys

    rows = "".join(f"text {row},{'yes' if row % 2 else 'no'}\n" for row in range(40))
    (tmp_path / "d.csv").write_text("text,label\n" + rows)
    program = (
        "import sys; from hpo.config.study import DataConfig; from hpo.tasks.registry import get_task\n"
        f"task = get_task('text-classification'); task.prepare(DataConfig(path={str(tmp_path)!r}), 0)\n"
        "task.scorer('f1')\n"
        "print(*sorted({'torch', 'transformers', 'evaluate', 'sklearn', 'optuna'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
