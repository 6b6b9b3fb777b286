"""Tokens are made once by whoever comes first, for all processes of the machine."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from hpo.tasks.task import TaskData
from hpo.tasks.text_classification import TextClassification
from hpo.training.features import FeatureStore
from tests.small_models import WORDS, save_tokenizer

ROWS = 2_500  # more than one batch of the encoder


class CountedTask(TextClassification):
    """Leaves a file each time that it encodes."""

    def __init__(self, marks: Path) -> None:
        self.marks = marks

    def encode(self, rows: Dataset, tokenizer: Any, max_length: int) -> Dataset:
        (self.marks / f"{os.getpid()}-{len(list(self.marks.iterdir()))}").touch()
        return super().encode(rows, tokenizer, max_length)


def make_data() -> TaskData:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[5:], rng.integers(3, 12))) for _ in range(ROWS)]
    rows = Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(ROWS)]})
    return TaskData(rows, rows.select(range(10)), None, ("no", "yes"), {}, (), "a fingerprint")


def get_features(folder: Path, queue: Any) -> None:
    from transformers import AutoTokenizer

    store = FeatureStore(folder / "cache", CountedTask(folder / "marks"), make_data())
    features = store.get("train", AutoTokenizer.from_pretrained(folder / "tokenizer"), 8)
    queue.put((len(features), int(features.columns["input_ids"][0].sum()), int(features.lengths.max())))


def test_many_first_users_make_one_good_copy(tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    save_tokenizer(tmp_path / "tokenizer")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    users = [context.Process(target=get_features, args=(tmp_path, queue)) for _ in range(4)]
    for user in users:
        user.start()
    answers = [queue.get(timeout=120) for _ in users]
    for user in users:
        user.join()
    assert len(set(answers)) == 1
    assert answers[0][0] == ROWS
    assert answers[0][2] == 8
    assert len(list((tmp_path / "marks").iterdir())) == 1
    folders = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(folders) == 1


def test_what_was_torn_is_made_anew_and_other_lengths_apart(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    (tmp_path / "marks").mkdir()
    save_tokenizer(tmp_path / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    task = CountedTask(tmp_path / "marks")
    store = FeatureStore(tmp_path / "cache", task, make_data())
    whole = store.get("validation", tokenizer, 32)
    assert store.get("validation", tokenizer, 32) is whole
    cut = store.get("validation", tokenizer, 4)
    assert cut.lengths.max() == 4
    assert len(list(task.marks.iterdir())) == 2
    # A process that was killed while it wrote leaves its scratch folder, which nobody reads.
    folder = next(path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    folder.rename(folder.with_name(f"{folder.name}.4242"))
    again = FeatureStore(tmp_path / "cache", task, make_data())
    assert again.get("validation", tokenizer, 32).lengths.tolist() == whole.lengths.tolist()
    assert again.get("validation", tokenizer, 4).lengths.tolist() == cut.lengths.tolist()
    assert len(list(task.marks.iterdir())) == 3
