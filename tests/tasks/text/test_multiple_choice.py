"""Multiple choice: layouts of the data, invalid rows, and predictions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpo.config.study import DataConfig
from hpo.errors import DataError
from hpo.tasks.registry import get_task
from hpo.tasks.task_data import TaskData
from tests.small_models import save_tokenizer

TASK = get_task("multiple-choice")


def prepare(rows: list[dict[str, Any]], folder: Path, **config: Any) -> TaskData:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return TASK.prepare(DataConfig(path=str(path), **config), 0)


def all_rows(data: TaskData) -> list[dict[str, Any]]:
    assert data.test is not None
    return sorted((row for split in data.splits.values() for row in split), key=lambda row: row["text"])


# One row (number `n`, of 40) as public data sets have it, and the columns by which it is recognized.
FORMS: dict[str, tuple[Any, dict[str, str]]] = {
    "swag": (
        lambda n: {"sent1": f"s {n:02}", "sent2": "he", **{f"ending{i}": f"e{i}" for i in range(4)}, "label": n % 4},
        {"text": "sent1", "text_pair": "sent2", "choices": "ending", "label": "label"},
    ),
    "arc": (
        lambda n: {
            "question": f"s {n:02} he",
            "choices": {"text": [f"e{i}" for i in range(4)], "label": list("ABCD" if n % 2 else "1234")},
            "answerKey": ("ABCD" if n % 2 else "1234")[n % 4],
        },
        {"text": "question", "choices": "choices", "label": "answerKey"},
    ),
    "race": (
        lambda n: {"article": f"s {n:02}", "question": "he", "options": "e0 e1 e2 e3".split(), "answer": "ABCD"[n % 4]},
        {"text": "article", "text_pair": "question", "choices": "options", "label": "answer"},
    ),
    "from one": (
        lambda n: {"context": f"s {n:02}", "question": "he"}
        | {f"answer{'ABCD'[i]}": f"e{i}" for i in range(4)}
        | {"label": str(n % 4 + 1)},
        {"text": "context", "text_pair": "question", "choices": "answer", "label": "label"},
    ),
    "by its text": (
        lambda n: {"goal": f"s {n:02} he", "choices": [f"e{i}" for i in range(4)], "label": f"e{n % 4}"},
        {"text": "goal", "choices": "choices", "label": "label"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_all_layouts_give_the_same_data(form: str, tmp_path: Path) -> None:
    make, columns = FORMS[form]
    data = prepare([make(n) for n in range(40)], tmp_path)
    assert data.columns == columns
    expected = [{"text": f"s {n:02} he", "text_pair": [f"e{i}" for i in range(4)], "label": n % 4} for n in range(40)]
    assert all_rows(data) == expected
    assert any("counts the choices from 1" in note for note in data.notes) == (form == "from one")
    named = prepare([make(n) for n in range(40)], tmp_path, text=[*columns.values()][:-1], label=columns["label"])
    assert named.fingerprint == data.fingerprint


def test_rows_with_different_numbers_of_choices(tmp_path: Path) -> None:
    """A choice that a row does not have is never taken, and does not count in the loss."""
    rows = [{"question": f"a film {n}", "choices": ["good", "bad", "fine"][: 2 + n % 2], "label": 0} for n in range(30)]
    data = prepare(rows, tmp_path)
    assert TASK.describe(data) == "2 to 3 choices"
    logits = torch.tensor([[0.0, 1.0, 9.0], [0.0, 1.0, 9.0]])
    labels = torch.tensor([[0, 2], [0, 3]])
    assert list(TASK.reduce_logits(logits, labels)) == [1, 2]
    of_two = torch.nn.functional.cross_entropy(logits[:1, :2], labels[:1, 0], label_smoothing=0.1)
    of_three = torch.nn.functional.cross_entropy(logits[1:], labels[1:, 0], label_smoothing=0.1)
    assert float(TASK.loss(logits, labels, 0.1)) == pytest.approx(float(of_two + of_three))
    save_tokenizer(tmp_path)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    encoded = TASK.encode(data.train, tokenizer, 32)
    row = encoded.with_format(None)[0]
    words = np.array(row["input_ids"]).T
    assert [tokenizer.decode(ids) for ids in words][:2] == [
        "[CLS] a film [UNK] [SEP] good [SEP]",
        "[CLS] a film [UNK] [SEP] bad [SEP]",
    ]
    assert row["length"] == words.size and np.array(row["attention_mask"]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": 4}, r"row 3: 'label' is 4, which is none of its 2 choices"),
        ({"label": "C"}, r"row 3: 'label' is 'C', which is none of its 2 choices: write a choice's number"),
        ({"choices": ["only"]}, r"row 3: an empty choice, or fewer than two"),
        ({"choices": ["one", " ", "two"]}, r"row 3: an empty choice"),
        ({"question": ""}, r"with an empty text \(row 3"),
    ],
)
def test_invalid_row_raises_with_its_number(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    rows = [{"question": f"a {n}", "choices": ["good", "bad"], "label": "AB"[n % 2]} for n in range(30)]
    rows[2] |= changes
    for row in rows:
        row["label"] = str(row["label"])
    with pytest.raises(DataError, match=message.replace("is 4", "is '4'")):
        prepare(rows, tmp_path)


def test_missing_columns_raise(tmp_path: Path) -> None:
    rows = [{"question": f"a {n}", "options": ["good", "bad"], "right": n % 2} for n in range(30)]
    with pytest.raises(DataError, match=r"which column holds the right choice.*Name it in `data.label`"):
        prepare(rows, tmp_path)
    with pytest.raises(DataError, match=r"which columns hold the choices.*choice0, choice1"):
        prepare(rows, tmp_path, text=["question", "option"], label="right")
    assert prepare(rows, tmp_path, label="right").columns["choices"] == "options"


def test_inputs_from_arguments_and_files(tmp_path: Path) -> None:
    one, two = {"text": "question", "choices": "choices"}, {"text": "c", "text_pair": "q", "choices": "choice"}
    assert TASK.parse_arguments(["q", "a", "b"], one) == [("q", ["a", "b"])]
    assert TASK.parse_arguments(["c", "q", "a", "b"], two) == [("c", "q", ["a", "b"])]
    assert TASK.parse_arguments(["q", "a"], one) is None and TASK.parse_arguments(["c", "q", "a"], two) is None
    path = tmp_path / "more.csv"
    path.write_text("c,q,choice0,choice1,choice2\nwe met,who,a,b,\n")
    assert TASK.read_inputs(path, two) == [("we met", "who", ["a", "b"])]
    other = tmp_path / "other.csv"
    other.write_text("question,option_a,option_b\nwho,a,b\n")
    assert TASK.read_inputs(other, one) == [("who", ["a", "b"])]


def test_metric_equals_sklearn() -> None:
    from sklearn.metrics import accuracy_score

    predicted, true = np.random.default_rng(0).integers(4, size=(2, 90))
    assert TASK.scorer("accuracy")(predicted, true) == {"accuracy": accuracy_score(true, predicted)}
