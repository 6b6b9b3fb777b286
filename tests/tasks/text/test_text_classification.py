"""Text classification: recognized columns, encoding, loss, prediction and baseline."""

import math
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hpo.config.study import DataConfig
from hpo.errors import DataError
from hpo.tasks.registry import get_task
from tests.conftest import NO_DATA
from tests.tasks.small_data import Prepare, rows

TASK = get_task("text-classification")


REAL = Path(__file__).parents[3].parent / "shared" / "datasets"


def table(header: str, *lines: str) -> str:
    return "\n".join([header, *(line.replace("#", str(index)) for index, line in enumerate(lines * 20))])


@pytest.mark.parametrize(
    ("file", "columns"),
    [
        (table("id,sentence,label", "#,text #,a", "#,other #,b"), {"text": "sentence", "label": "label"}),
        (table("Label,Review", "a,text #", "b,other #"), {"text": "Review", "label": "Label"}),
        (
            table("premise,hypothesis,label", "x #,y,a", "z #,y,b"),
            {"text": "premise", "text_pair": "hypothesis", "label": "label"},
        ),
        (
            table("idx,question,answer,label", "#,x #,y,a", "#,z #,y,b"),
            {"text": "question", "text_pair": "answer", "label": "label"},
        ),
        (table("text,label,label_name", "x #,0,bad", "y #,1,good"), {"text": "text", "label": "label_name"}),
        (table("text,label,category", "x #,0,same", "y #,1,same"), {"text": "text", "label": "label"}),
        (table("text,verdict", "x #,guilty", "y #,not"), {"text": "text", "label": "verdict"}),
    ],
)
def test_columns_are_recognized_and_noted(file: str, columns: dict[str, str], prepare: Prepare) -> None:
    data = prepare({"d.csv": file})
    assert data.columns == columns
    assert data.train.column_names == list(columns)
    assert all(any(f"'{name}'" in note and "recognized" in note for note in data.notes) for name in columns.values())


def test_named_columns_are_used_without_a_note(prepare: Prepare) -> None:
    file = table("text,title,body,label,kind", "x,a #,b,0,p", "y,c #,d,1,q")
    data = prepare({"d.csv": file}, text=("title", "body"), label="kind")
    assert data.columns == {"text": "title", "text_pair": "body", "label": "kind"}
    assert not any("recognized" in note for note in data.notes)


def test_class_label_keeps_the_order_of_classes(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["worse", "better", "same"])})
    made = Dataset.from_dict({"text": [f"t {n}" for n in range(30)], "label": [0, 1, 2] * 10}, features=features)
    made.to_parquet(tmp_path / "train.parquet")
    data = TASK.prepare(DataConfig(path=str(tmp_path)), 0)
    assert data.label_names == ("worse", "better", "same")
    assert all(label == int(text[2:]) % 3 for text, label in zip(data.train["text"], data.train["label"], strict=True))


@pytest.mark.parametrize(
    "test_file", ["text\nunknown one\nunknown two\n", "text,label\nunknown one,\nunknown two,-1\n"]
)
def test_unlabeled_test_file_is_ignored_with_a_note(test_file: str, prepare: Prepare) -> None:
    data = prepare({"train.csv": rows(*["yes", "no"] * 20), "test.csv": test_file})
    assert "test.csv has no labels and is not used" in data.notes
    assert sum(data.sizes.values()) == 40
    assert data.test is not None


def test_texts_with_conflicting_labels_are_counted(prepare: Prepare) -> None:
    train = rows(*["yes", "no"] * 20) + "same text,yes\nSAME text,no\n"
    data = prepare(
        {"train.csv": train, "validation.csv": rows("yes", "no", start=60), "test.csv": rows("yes", "no", start=80)}
    )
    assert any(note.startswith("1 text with more than one label (1 in train)") for note in data.notes)


def test_fingerprint_depends_on_the_content_only(prepare: Prepare, tmp_path: Path) -> None:
    file = rows(*["yes", "no"] * 20)
    first = prepare({"a/d.csv": file}, path="a")
    moved = prepare({"b/e.tsv": file.replace(",", "\t")}, path="b")
    changed = prepare({"c/d.csv": file.replace("number 7,", "number seven,")}, path="c")
    swapped = prepare({"d/d.csv": file.replace("yes", "YES")}, path="d")
    assert first.fingerprint == moved.fingerprint
    assert len({data.fingerprint for data in (first, changed, swapped)}) == 3


def test_encode_equals_the_tokenizer_without_padding(tokenizer: Any) -> None:
    texts = ["a b c", "", "d " * 50, "unknown words", "a"]
    encoded = TASK.encode(Dataset.from_dict({"text": texts, "label": [0, 1, 0, 1, 1]}), tokenizer, 8)
    expected = tokenizer(texts, truncation=True, max_length=8)
    assert encoded["input_ids"][:] == expected["input_ids"]
    assert encoded["token_type_ids"][:] == expected["token_type_ids"]
    assert encoded["length"][:] == [5, 2, 8, 4, 3]
    assert encoded["labels"][:] == [0, 1, 0, 1, 1]
    assert str(encoded.data.table.schema.field("input_ids").type) == "list<item: int32>"


def test_encode_pairs_over_several_batches(tokenizer: Any) -> None:
    pairs = [("a b"[: index % 4], "c d e"[: index % 5]) for index in range(2500)]
    made = Dataset.from_dict({"text": [a for a, _ in pairs], "text_pair": [b for _, b in pairs]})
    encoded = TASK.encode(made, tokenizer, 8)
    assert encoded["input_ids"][:] == tokenizer([a for a, _ in pairs], [b for _, b in pairs])["input_ids"]
    assert "labels" not in encoded.column_names


def test_no_token_types_without_a_tokenizer_that_returns_them(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "model_input_names", ["input_ids", "attention_mask"])
    encoded = TASK.encode(Dataset.from_dict({"text": ["a"]}), tokenizer, 8)
    assert encoded.column_names == ["input_ids", "length"]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_summed_loss_makes_accumulation_exact(label_smoothing: float) -> None:
    import torch

    torch.manual_seed(0)
    logits, labels = torch.randn(10, 3, dtype=torch.bfloat16), torch.randint(3, (10,))
    whole = TASK.loss(logits, labels, label_smoothing) / TASK.target_count(labels)
    parts = sum(TASK.loss(logits[part], labels[part], label_smoothing) for part in (slice(7), slice(7, 10)))
    mean = torch.nn.functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    assert whole.dtype == torch.float32
    assert torch.allclose(whole, mean) and torch.allclose(parts / 10, mean)


def test_reduce_logits_returns_the_most_likely_classes() -> None:
    import torch

    logits = torch.tensor([[0.1, 2.0, 1.0], [3.0, 0.0, 1.0]])
    assert list(TASK.reduce_logits(logits, torch.zeros(2))) == [1, 0]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_predict_keeps_the_order_of_inputs(model: Any, tokenizer: Any, batch_size: int) -> None:
    import torch

    texts = ["a b c d e", "f", "", "g h " * 20, "i j", "k"]
    answers = TASK.predict(model, tokenizer, texts, max_length=12, batch_size=batch_size)
    assert [answer["text"] for answer in answers] == texts
    for text, answer in zip(texts, answers, strict=True):
        with torch.inference_mode():
            scores = model(**tokenizer(text, truncation=True, max_length=12, return_tensors="pt")).logits[0].softmax(-1)
        assert answer["label"] == ("red", "green", "blue")[int(scores.argmax())]
        assert math.isclose(answer["score"], float(scores.max()), abs_tol=1e-5)
    assert len({answer["label"] for answer in answers}) > 1


def test_predict_pairs_and_no_input(model: Any, tokenizer: Any) -> None:
    answers = TASK.predict(model, tokenizer, [("a", "b c"), ("d", "")], max_length=12)
    assert [(answer["text"], answer["text_pair"]) for answer in answers] == [("a", "b c"), ("d", "")]
    assert TASK.predict(model, tokenizer, [], max_length=12) == []


def test_predict_without_a_padding_token(model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a b c", "d"]
    padded = TASK.predict(model, tokenizer, texts, max_length=12)
    monkeypatch.setattr(tokenizer, "_special_tokens_map", {**tokenizer._special_tokens_map, "pad_token": None})
    assert tokenizer.pad_token_id is None
    assert [a["label"] for a in TASK.predict(model, tokenizer, texts, 12)] == [a["label"] for a in padded]


SINGLE = {"text": "review", "label": "stars"}


PAIR = {"text": "q", "text_pair": "a", "label": "label"}


@pytest.mark.parametrize(
    ("name", "content", "columns", "inputs"),
    [
        ("d.csv", "stars,review\n1,good\n2,bad\n", SINGLE, ["good", "bad"]),
        ("d.csv", "stars,text\n1,good\n", SINGLE, ["good"]),
        ("d.tsv", "a\tq\nyes\twhy\n", PAIR, [("why", "yes")]),
        ("d.jsonl", '{"review": "good"}\n{"review": null}\n', SINGLE, ["good", ""]),
        ("d.txt", "good\n\nvery, very bad\n", SINGLE, ["good", "very, very bad"]),
    ],
)
def test_read_inputs(name: str, content: str, columns: dict[str, str], inputs: list[Any], tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert TASK.read_inputs(tmp_path / name, columns) == inputs


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.csv", "q,b\nwhy,yes\n", "no column 'a'"),
        ("d.txt", "why\n", "columns q and a"),
        ("other.csv", None, "There is no file"),
    ],
)
def test_read_inputs_raises(name: str, content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as error:
        TASK.read_inputs(tmp_path / name, PAIR)
    assert message in str(error.value)


def test_baseline_separates_classes_by_words(prepare: Prepare) -> None:
    lines = ["good fine number #,up", "bad poor number #,down"]
    data = prepare({"d.csv": table("text,label", *lines)})
    assert TASK.baseline(data, "f1") == ("TF-IDF + logistic regression", 1.0)
    assert TASK.baseline(data, "loss") is None


def test_baseline_does_not_apply_to_texts_without_words(prepare: Prepare) -> None:
    data = prepare(
        {"d.csv": table("text,label", *(f"{sign * n},{sign == '!'}" for n in range(1, 20) for sign in "!?"))}
    )
    assert TASK.baseline(data, "accuracy") is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes", "classes", "note"),
    [
        ("banking77", (8996, 1000, 3080), 77, "7 training rows dropped"),
        ("sms_spam", (4470, 561, 543), 2, "names of the ids in 'label'"),
        ("tweet_emotion", (3257, 374, 1421), 4, "names of the ids in 'label'"),
        ("medical_abstracts_small", (1998, 303, 587), 5, "113 texts with more than one label"),
        ("clinc150", (15095, 3100, 5500), 151, "3 training rows dropped"),
    ],
)
def test_real_data(name: str, sizes: tuple[int, ...], classes: int, note: str) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(NO_DATA)
    data = TASK.prepare(DataConfig(path=str(REAL / name)), 0)
    assert tuple(data.sizes.values()) == sizes
    assert len(data.label_names) == classes
    assert any(note in found for found in data.notes)
