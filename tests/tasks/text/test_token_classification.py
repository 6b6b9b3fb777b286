"""Token classification: reading tagged words, and one label per word after encoding."""

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hpo.errors import DataError
from hpo.tasks.registry import get_task
from hpo.tasks.text.token_classification import IGNORED
from hpo.training.batches.features import Features
from tests.tasks.small_data import Read, bundled_tokenizer

CONLL = """-DOCSTART- -X- O O

# a comment
New NNP B-place
York NNP I-place
is VB O

Anna NNP B-person
sings VB O
"""


def test_reads_conll_files(read: Read) -> None:
    text = CONLL + "\n" + "\n\n".join(f"word{n} NN O\nAnna{n} NNP B-person" for n in range(30)) + "\n"
    data = read("token-classification", text, "d.conll")
    assert sum(data.sizes.values()) == 32
    assert data.label_names[0] == "O" and set(data.label_names) >= {"B-person"}
    row = next(row for split in data.splits.values() for row in split if row["text"][0] == "New")
    assert [data.label_names[tag] for tag in row["label"]] == ["B-place", "I-place", "O"]


@pytest.mark.parametrize(
    ("rows", "name", "message"),
    [
        ("New B-place\nYork\n", "d.conll", "line 2: 1 columns where 2 are expected"),
        ([{"tokens": ["a", "b"], "tags": ["O"]}], "d.jsonl", "row 1: 2 words in 'tokens' and 1 tag in 'tags'"),
        ([{"tokens": [f"a{n}"], "tags": ["O"]} for n in range(30)], "d.jsonl", "every word has the tag 'O'"),
        ([{"text": "a b", "other": "x"}], "d.jsonl", "which column holds the tags"),
    ],
)
def test_invalid_tags_raise(rows: Any, name: str, message: str, read: Read) -> None:
    with pytest.raises(DataError) as error:
        read("token-classification", rows, name)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["bert-3x128", "roberta-4x128"])  # word pieces; bytes, which count the space before
@pytest.mark.parametrize("max_length", [8, 64])
def test_each_word_has_one_label(name: str, max_length: int) -> None:
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
