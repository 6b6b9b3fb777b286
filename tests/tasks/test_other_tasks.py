"""Numbers, label sets, tagged words and answers: how they are read, encoded, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.errors import DataError
from hpo.tasks.registry import get_task, infer_task
from hpo.tasks.task_data import TaskData
from hpo.tasks.text.token_classification import IGNORED
from hpo.training.batches.features import Features

Read = Callable[..., TaskData]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Prepare `task` on rows (lists of objects, or a text) in a file of their own."""

    def prepare(task: str, rows: list[dict[str, Any]] | str, name: str = "d.jsonl", **config: Any) -> TaskData:
        text = rows if isinstance(rows, str) else "\n".join(map(json.dumps, rows))
        (tmp_path / name).write_text(text)
        return get_task(task).prepare(DataConfig(path=str(tmp_path / name), **config), 0)

    return prepare


def spelled(data: TaskData) -> list[list[str]]:
    return [[data.label_names[place] for place in np.flatnonzero(row)] for row in data.train["label"][:]]


def numbered(*labels: Any, key: str = "label") -> list[dict[str, Any]]:
    return [{"text": f"text number {place}", key: label} for place, label in enumerate(labels)]


# Numbers


def test_numbers_are_standardised_and_dealt_out_evenly(read: Read) -> None:
    data = read("text-regression", numbered(*(float(n) for n in range(200)), key="score"))
    train = np.array(data.train["label"][:])
    assert train.mean() == pytest.approx(0, abs=1e-9) and train.std() == pytest.approx(1)
    mean, deviation = data.scale
    assert mean == pytest.approx(99.5, abs=3) and deviation == pytest.approx(57.7, abs=3)
    assert data.test is not None
    for rows in (data.validation, data.test):
        found = mean + deviation * np.array(rows["label"][:])
        assert np.allclose(found, np.round(found)) and abs(found.mean() - 99.5) < 12


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["1.5", "high", "2"], "row 2: 'high' is not a finite number"),
        ([1.5, None, 2.0], "1 of 3 rows without a number (row 2 below"),
        ([1.5, 1.5, 1.5], "every label is 1.5"),
        ([[1.0], [2.0]], "not a number a row"),
    ],
)
def test_what_is_no_number_is_refused(labels: list[Any], says: str, read: Read) -> None:
    with pytest.raises(DataError) as told:
        read("text-regression", numbered(*labels))
    assert says in str(told.value)


def test_a_pair_with_a_score_is_recognised(read: Read) -> None:
    rows = "sentence1,sentence2,score\n" + "".join(f"a {n},b {n},{n / 10}\n" for n in range(40))
    data = read("text-regression", rows, "d.csv")
    assert data.columns == {"text": "sentence1", "text_pair": "sentence2", "label": "score"}


def test_the_baseline_of_pairs_sees_what_they_share(read: Read) -> None:
    words = "red green blue black white grey pink brown".split()
    rows = [
        {
            "text1": " ".join(words[n % 3 : n % 3 + 4]),
            "text2": " ".join(words[n % 5 : n % 5 + 4]) + f" no{n}",
            "score": s,
        }
        for n in range(120)
        for s in [4 - abs(n % 3 - n % 5) + 0.5]
    ]
    data = read("text-regression", rows)
    found = get_task("text-regression").baseline(data, "pearson")
    assert found is not None and found[0] == "TF-IDF + ridge regression" and found[1] > 0.9


# Label sets


@pytest.mark.parametrize(
    ("labels", "config"),
    [
        ([["b", "a"], [], ["a"]], {}),
        (["b|a", "", "a"], {}),
        (["b and a", "", "a"], {"label_delimiter": " and "}),
    ],
)
def test_label_sets_as_lists_and_as_texts(labels: list[Any], config: dict[str, Any], read: Read) -> None:
    data = read("multi-label-classification", numbered(*labels * 20), **config)
    assert data.label_names == ("a", "b")
    assert {tuple(names) for names in spelled(data)} == {("a", "b"), (), ("a",)}
    assert any("rows without any label" in note for note in data.notes)


def test_label_sets_as_columns(read: Read) -> None:
    rows = "text,rude,kind\n" + "".join(f"text {n},{n % 2},{int(n % 3 == 0)}\n" for n in range(60))
    data = read("multi-label-classification", rows, "d.csv", label=["rude", "kind"])
    assert data.label_names == ("kind", "rude")
    for text, names in zip(data.train["text"][:], spelled(data), strict=True):
        number = int(text.split()[1])
        assert names == [name for name, there in (("kind", number % 3 == 0), ("rude", number % 2)) if there]


@pytest.mark.parametrize(
    ("rows", "config", "says"),
    [
        (numbered("a", "b", "a"), {}, "one label a row"),
        (numbered(["a"], None, ["b"]), {}, "no list of labels in row 2"),
        ([{"text": "x", "a": 1, "b": 2}], {"label": ["a", "b"]}, "column 'b', row 1: '2' is neither 0 nor 1"),
        (numbered(["a"], ["a"]), {}, "1 class in all"),
    ],
)
def test_what_are_no_label_sets_is_refused(
    rows: list[dict[str, Any]], config: dict[str, Any], says: str, read: Read
) -> None:
    with pytest.raises(DataError) as told:
        read("multi-label-classification", rows, **config)
    assert says in str(told.value)


# Tagged words

CONLL = """-DOCSTART- -X- O O

# a comment
New NNP B-place
York NNP I-place
is VB O

Anna NNP B-person
sings VB O
"""


def test_conll_files_are_read(read: Read) -> None:
    text = CONLL + "\n" + "\n\n".join(f"word{n} NN O\nAnna{n} NNP B-person" for n in range(30)) + "\n"
    data = read("token-classification", text, "d.conll")
    assert sum(data.sizes.values()) == 32
    assert data.label_names[0] == "O" and set(data.label_names) >= {"B-person"}
    row = next(row for split in data.splits.values() for row in split if row["text"][0] == "New")
    assert [data.label_names[tag] for tag in row["label"]] == ["B-place", "I-place", "O"]


@pytest.mark.parametrize(
    ("rows", "name", "says"),
    [
        ("New B-place\nYork\n", "d.conll", "line 2: 1 columns where 2 are expected"),
        ([{"tokens": ["a", "b"], "tags": ["O"]}], "d.jsonl", "row 1: 2 words in 'tokens' and 1 tag in 'tags'"),
        ([{"tokens": [f"a{n}"], "tags": ["O"]} for n in range(30)], "d.jsonl", "every word has the tag 'O'"),
        ([{"text": "a b", "other": "x"}], "d.jsonl", "which column holds the tags"),
    ],
)
def test_what_are_no_tagged_words_is_refused(rows: Any, name: str, says: str, read: Read) -> None:
    with pytest.raises(DataError) as told:
        read("token-classification", rows, name)
    assert says in str(told.value)


def bundled_tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(Path(__file__).parents[2] / "examples" / "models" / name)


@pytest.mark.parametrize("name", ["bert-3x128", "roberta-4x128"])  # word pieces; bytes, which count the space before
@pytest.mark.parametrize("max_length", [8, 64])
def test_each_word_has_its_tag_once(name: str, max_length: int) -> None:
    task = get_task("token-classification")
    words = ["Unbelievably", "(", "misunderstanding", ")", "\u200d", "the", "@functools.wraps", "decorators", "…", "x"]
    rows = Dataset.from_dict({"text": [words, ["one"]], "label": [list(range(10)), [3]]})
    tokenizer = bundled_tokenizer(name)
    encoded = task.encode(rows, tokenizer, max_length)
    assert max(encoded["length"][:]) <= max_length and (max_length == 64) == (len(encoded) == 2)
    found: dict[int, list[int]] = {0: [], 1: []}
    for ids, labels, at, example in zip(
        *(encoded[name][:] for name in ("input_ids", "labels", "_word", "_example")), strict=True
    ):
        assert [label != IGNORED for label in labels] == [word >= 0 for word in at]
        found[example] += [label for label in labels if label != IGNORED]
        for token, word in zip(ids, at, strict=True):
            piece = tokenizer.decode([token]).strip().lower()
            assert word < 0 or example or piece in ("[unk]", "\ufffd") or words[word].lower().startswith(piece)
    assert found[1] == [3]
    assert found[0] in (list(range(10)), [0, 1, 2, 3, 5, 6, 7, 8, 9])  # of the joiner nothing may be left
    features = Features.from_dataset(encoded, tokenizer.pad_token_id, rows=rows)
    kept = [np.array([label for label in row if label != IGNORED]) for row in encoded["labels"][:]]
    predictions, references = task.align_predictions(kept, features)
    assert references.tolist() == [tuple(range(10)), (3,)]
    assert [a == b for a, b in zip(predictions[0], references[0], strict=True)].count(False) <= 1


# Answers

SQUAD = {"question": "who sings", "context": "Today Anna sings a song, and Bert listens.", "answers": ["Anna", "Bert"]}


def questions(many: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        {**SQUAD, "question": f"who sings {n}", "context": f"{SQUAD['context']} {n // 2}", **changes}
        for n in range(many)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"answers": {"text": ["Anna", "Bert"], "answer_start": [6, 29]}},
        {"answers": [{"text": "Anna", "answer_start": 6}, {"text": "Bert", "answer_start": 29}]},
        {},
    ],
)
def test_answers_are_read_and_contexts_kept_together(changes: dict[str, Any], read: Read) -> None:
    data = read("question-answering", questions(60, **changes))
    assert data.train["label"][0] == {"text": ["Anna", "Bert"], "answer_start": [6, 29]}
    contexts = [set(rows["text_pair"][:]) for rows in data.splits.values()]
    assert not contexts[0] & contexts[1] and not contexts[0] & contexts[2] and not contexts[1] & contexts[2]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"answers": {"text": ["Anna"], "answer_start": [7]}}, "'Anna' is not at character 7"),
        ({"answers": ["Carla"]}, "'Carla' is not in its context"),
        ({"answers": {"text": [], "answer_start": []}}, "30 of 30 questions without an answer"),
    ],
)
def test_what_is_no_answer_is_refused(changes: dict[str, Any], says: str, read: Read) -> None:
    with pytest.raises(DataError) as told:
        read("question-answering", questions(30, **changes))
    assert says in str(told.value)


@pytest.mark.parametrize("name", ["bert-3x128", "roberta-4x128"])
def test_windows_hold_the_answer_and_give_it_back(name: str) -> None:
    task = get_task("question-answering")
    filler = "the module gives a list of names and raises an error where a file is missing. "
    context = filler * 6 + "Guido wrote it. " + filler * 6
    label = {"text": ["Guido"], "answer_start": [context.index("Guido")]}
    rows = Dataset.from_dict({"text": ["who wrote it? " * 30], "text_pair": [context], "label": [label]})
    tokenizer = bundled_tokenizer(name)
    encoded = task.encode(rows, tokenizer, 64)
    assert len(encoded) > 4 and max(encoded["length"][:]) <= 64
    spans = []
    for (first, last, begin, end), length in zip(encoded["labels"][:], encoded["length"][:], strict=True):
        assert 0 < begin <= end < length
        spans.append([1.0, first, last] if first else [-1.0, begin, begin])
    assert sum(span[0] > 0 for span in spans) >= 1
    features = Features.from_dataset(encoded, tokenizer.pad_token_id, rows=rows)
    predictions, references = task.align_predictions(spans, features)
    assert predictions.tolist() == ["Guido"] and references.tolist() == [("Guido",)]


def test_the_best_span_is_the_best_of_all_pairs() -> None:
    import torch

    from hpo.tasks.text.answer_spans import LONGEST_ANSWER, best_spans

    torch.manual_seed(0)
    logits = torch.randn(4, 90, 2)
    of_context = torch.zeros(4, 90, dtype=torch.bool)
    of_context[:, 5:85] = True
    for row, (score, first, last) in enumerate(best_spans(logits, of_context)):
        pairs = {
            (float(logits[row, i, 0] + logits[row, j, 1]), i, j)
            for i in range(5, 85)
            for j in range(i, min(85, i + LONGEST_ANSWER))
        }
        assert (pytest.approx(score), first, last) == max(pairs)


def test_several_label_columns_are_known_as_several_labels_a_row() -> None:
    rows = Dataset.from_dict({"text": ["one", "two"], "a": [0, 1], "b": [1, 1]})
    assert infer_task(rows, DataConfig(path="rows.csv", label=("a", "b"))).name == "multi-label-classification"
