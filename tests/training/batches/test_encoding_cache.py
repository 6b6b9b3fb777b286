"""Each split is encoded once, by the first process that needs it, for all processes of the machine."""

import multiprocessing
import threading
import uuid
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hpo.tasks.task_data import TaskData
from hpo.tasks.text.text_classification import TextClassification
from hpo.training.batches.encoding_cache import EncodingCache
from tests.small_models import WORDS, save_tokenizer

ROWS = 2_500  # more than one batch of `Dataset.map`


class CountingTask(TextClassification):
    """Writes a file for each call of `encode`."""

    def __init__(self, calls: Path) -> None:
        self.calls = calls

    def encode(self, rows: Dataset, tokenizer: Any, max_length: int) -> Dataset:
        (self.calls / uuid.uuid4().hex).touch()
        return super().encode(rows, tokenizer, max_length)


def make_data() -> TaskData:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[5:], rng.integers(3, 12))) for _ in range(ROWS)]
    rows = Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(ROWS)]})
    return TaskData(rows, rows.select(range(10)), None, ("no", "yes"), {}, (), "a fingerprint")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "calls").mkdir()
    save_tokenizer(tmp_path / "tokenizer")
    return tmp_path


def get_features(folder: Path) -> tuple[int, int, int]:
    from transformers import AutoTokenizer

    store = EncodingCache(folder / "cache", CountingTask(folder / "calls"), make_data())
    features = store.get("train", AutoTokenizer.from_pretrained(folder / "tokenizer"), 8)
    return len(features), int(features.columns["input_ids"][0].sum()), int(features.lengths.max())


def assert_encoded_once(folder: Path, results: list[tuple[int, int, int]]) -> None:
    assert len(set(results)) == 1
    assert results[0][0] == ROWS
    assert results[0][2] == 8
    assert len(list((folder / "calls").iterdir())) == 1
    assert len([path for path in (folder / "cache").iterdir() if path.is_dir()]) == 1


def test_concurrent_threads_encode_once(folder: Path) -> None:
    """Each has its own cache and lock, as separate processes do: the lock belongs to the open file."""
    together = threading.Barrier(4)

    def user(_: int) -> tuple[int, int, int]:
        together.wait()
        return get_features(folder)

    with ThreadPoolExecutor(4) as users:
        assert_encoded_once(folder, list(users.map(user, range(4))))


@pytest.mark.slow
def test_concurrent_processes_encode_once(folder: Path) -> None:
    """Their imports alone take some 10 s of processor time."""
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as users:
        assert_encoded_once(folder, list(users.map(get_features, [folder] * 3)))


def test_unfinished_entry_is_encoded_again_and_lengths_have_their_own(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    task = CountingTask(folder / "calls")
    store = EncodingCache(folder / "cache", task, make_data())
    full = store.get("validation", tokenizer, 32)
    assert store.get("validation", tokenizer, 32) is full
    cut = store.get("validation", tokenizer, 4)
    assert cut.lengths.max() == 4
    assert len(list(task.calls.iterdir())) == 2
    # A process that was killed while it encoded leaves its scratch folder, which is not read.
    made = next(path for path in (folder / "cache").iterdir() if path.is_dir())
    made.rename(made.with_name(f"{made.name}.4242"))
    again = EncodingCache(folder / "cache", task, make_data())
    assert again.get("validation", tokenizer, 32).lengths.tolist() == full.lengths.tolist()
    assert again.get("validation", tokenizer, 4).lengths.tolist() == cut.lengths.tolist()
    assert len(list(task.calls.iterdir())) == 3
