"""Question answering: reading answers, and windows over a long context."""

from typing import Any

import pytest
from datasets import Dataset

from hpo.errors import DataError
from hpo.tasks.registry import get_task
from hpo.training.batches.features import Features
from tests.tasks.small_data import Read, bundled_tokenizer

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
def test_reads_answers_and_keeps_contexts_in_one_split(changes: dict[str, Any], read: Read) -> None:
    data = read("question-answering", questions(60, **changes))
    assert data.train["label"][0] == {"text": ["Anna", "Bert"], "answer_start": [6, 29]}
    contexts = [set(rows["text_pair"][:]) for rows in data.splits.values()]
    assert not contexts[0] & contexts[1] and not contexts[0] & contexts[2] and not contexts[1] & contexts[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": {"text": ["Anna"], "answer_start": [7]}}, "'Anna' is not at character 7"),
        ({"answers": ["Carla"]}, "'Carla' is not in its context"),
        ({"answers": {"text": [], "answer_start": []}}, "30 of 30 questions without an answer"),
    ],
)
def test_invalid_answer_raises(changes: dict[str, Any], message: str, read: Read) -> None:
    with pytest.raises(DataError) as error:
        read("question-answering", questions(30, **changes))
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["bert-3x128", "roberta-4x128"])
def test_windows_contain_the_answer_and_return_it(name: str) -> None:
    task = get_task("question-answering")
    filler = "the module gives a list of names and raises an error where a file is missing. "
    context = filler * 6 + "Guido wrote it. " + filler * 6
    label = {"text": ["Guido"], "answer_start": [context.index("Guido")]}
    rows = Dataset.from_dict({"text": ["who wrote it? " * 30], "text_pair": [context], "label": [label]})
    tokenizer = bundled_tokenizer(name)
    encoded = task.encode(rows, tokenizer, 64)
    assert len(encoded) > 4 and max(encoded["length"][:]) <= 64
    spans = []
    for (first, last, start, end), length in zip(encoded["labels"][:], encoded["length"][:], strict=True):
        assert 0 < start <= end < length
        spans.append([1.0, first, last] if first else [-1.0, start, start])
    assert sum(span[0] > 0 for span in spans) >= 1
    features = Features.from_dataset(encoded, tokenizer.pad_token_id, rows=rows)
    predictions, references = task.align_predictions(spans, features)
    assert predictions.tolist() == ["Guido"] and references.tolist() == [("Guido",)]
