"""Inputs that `predict` accepts, for each task; anything else raises."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from hpo.errors import DataError
from hpo.tasks.inputs import read_inputs
from hpo.tasks.registry import get_task

TEXT = {"text": "review", "label": "stars"}
PAIR = {"text": "premise", "text_pair": "hypothesis", "label": "label"}
QUESTION = {"text": "question", "text_pair": "context", "label": "answers"}
CHOICES = {"text": "question", "choices": "choice", "label": "answer"}
WORDS = {"text": "tokens", "label": "tags"}
CHAT = {"messages": "messages"}
PROMPT = {"text": "prompt", "label": "completion"}
CONVERSATION = [{"role": "user", "content": "hi"}]


def inputs(task: str, columns: dict[str, str], data: Any) -> list[Any]:
    return read_inputs(get_task(task), data, columns)


@pytest.mark.parametrize(
    "data",
    [
        ["so happy", "never again"],
        ("so happy", "never again"),
        np.array(["so happy", "never again"]),
        np.array(["so happy", "never again"], dtype=object),
        pd.Series(["so happy", "never again"], index=[7, 9]),
        [{"review": "so happy"}, {"review": "never again", "stars": 1, "more": None}],
        pd.DataFrame({"review": ["so happy", "never again"], "stars": [5, 1]}),
        pd.DataFrame({"id": [1, 2], "review": ["so happy", "never again"]}, index=[7, 9]),
        Dataset.from_dict({"review": ["so happy", "never again"]}),
    ],
    ids=lambda data: type(data).__name__,
)
def test_texts(data: Any) -> None:
    assert inputs("text-classification", TEXT, data) == ["so happy", "never again"]


@pytest.mark.parametrize("data", ["so happy", {"review": "so happy"}, ["so happy"]])
def test_one_text(data: Any) -> None:
    assert inputs("text-classification", TEXT, data) == ["so happy"]


@pytest.mark.parametrize("data", [[], (), np.array([]), pd.Series([], dtype=object), pd.DataFrame({"review": []})])
def test_nothing(data: Any) -> None:
    assert inputs("text-classification", TEXT, data) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"text": "so happy"}], r"Input 1.*'review'"),
        ({"reveiw": "so happy"}, r"Input 1: the row has no column 'review'. Did you mean 'reveiw'"),
        (Dataset.from_dict({"text": ["so happy"]}), r"'review'"),
        (pd.DataFrame({"text": ["so happy"]}), r"'review'"),
        (5, r"reads 'review', not int 5"),
        (None, r"not NoneType None"),
        ([5], r"Input 1: .*not int 5"),
        (["so happy", None], r"Input 2: .*not NoneType"),
        (pd.Series(["so happy", np.nan]), r"Input 2: .*not float nan"),
        ([["so happy", "never again"]], r"Input 1: .*not list \['so happy', 'never again'\]"),
        ([("so happy", "never again")], r"Input 1: .*not tuple"),
        (["so happy", {"review": "never again"}], r"Input 2: .*not dict"),
        ({"review": ["so happy", "never again"]}, r"review"),
        ([{"review": "a"}, {"review": None}], r"Input 2: its 'review' is missing"),
        (pd.DataFrame({"review": ["a", np.nan]}), r"Input 2: its 'review' is missing"),
        ({"so happy", "never again"}, r"not set"),
        (b"so happy", r"not bytes"),
        (iter(["so happy"]), r"not list_iterator"),
        (CONVERSATION, r"Input 1: .*not dict"),
    ],
)
def test_anything_else_raises(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        inputs("text-classification", TEXT, data)


@pytest.mark.parametrize(
    "data",
    [
        ("a", "b"),
        [("a", "b")],
        (("a", "b"),),
        [["a", "b"]],
        np.array([["a", "b"]]),
        {"premise": "a", "hypothesis": "b"},
        [{"hypothesis": "b", "premise": "a"}],
        pd.DataFrame({"hypothesis": ["b"], "premise": ["a"]}),
        Dataset.from_dict({"hypothesis": ["b"], "premise": ["a"], "label": [0]}),
    ],
    ids=lambda data: type(data).__name__,
)
def test_pairs(data: Any) -> None:
    assert inputs("text-classification", PAIR, data) == [("a", "b")]
    names = {"premise": "question", "hypothesis": "context"}
    if isinstance(data, dict):
        data = {names[name]: value for name, value in data.items()}
        assert inputs("question-answering", QUESTION, data) == [("a", "b")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a", r"Input 1: .*pairs of 'premise' and 'hypothesis', not str 'a'"),
        (["a", "b"], r"Input 1: .*not str 'a'"),
        (("a", "b", "c"), r"not tuple"),
        ([("a",)], r"not tuple"),
        ([("a", 5)], r"not tuple"),
        ({"premise": "a"}, r"'hypothesis'"),
    ],
)
def test_half_a_pair_raises(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        inputs("text-classification", PAIR, data)


@pytest.mark.parametrize(
    "data",
    [
        ("why", ["a", "b"]),
        [("why", ("a", "b"))],
        {"question": "why", "choice": ["a", "b"]},
        [{"question": "why", "choice": ["a", "b"]}],
        {"question": "why", "choice0": "a", "choice1": "b"},
        pd.DataFrame({"question": ["why"], "choice0": ["a"], "choice1": ["b"]}),
        Dataset.from_dict({"question": ["why"], "choice": [["a", "b"]]}),
    ],
)
def test_choices(data: Any) -> None:
    assert inputs("multiple-choice", CHOICES, data) == [("why", ["a", "b"])]


@pytest.mark.parametrize("data", ["why", ("why", "a", "b"), ("why", ["a"]), [("why", "a")], {"question": "why"}])
def test_a_question_without_choices_raises(data: Any) -> None:
    with pytest.raises(DataError, match=r"question|choice"):
        inputs("multiple-choice", CHOICES, data)


def test_words() -> None:
    task = "token-classification"
    assert inputs(task, WORDS, "EU rejects") == ["EU rejects"]
    assert inputs(task, WORDS, ["EU", "rejects"]) == ["EU", "rejects"]  # two texts
    assert inputs(task, WORDS, [["EU", "rejects"], "a text"]) == [["EU", "rejects"], "a text"]
    assert inputs(task, WORDS, {"tokens": ["EU", "rejects"]}) == [["EU", "rejects"]]
    assert inputs(task, WORDS, Dataset.from_dict({"tokens": [["EU", "rejects"]]})) == [["EU", "rejects"]]
    with pytest.raises(DataError, match="Input 1"):
        inputs(task, WORDS, [["EU", 5]])


def test_prompts_and_conversations() -> None:
    task = "causal-lm"
    assert inputs(task, PROMPT, "once") == ["once"]
    assert inputs(task, PROMPT, [{"prompt": "once"}]) == ["once"]
    assert inputs(task, CHAT, CONVERSATION) == [CONVERSATION]
    assert inputs(task, CHAT, [CONVERSATION, "hi"]) == [CONVERSATION, "hi"]
    assert inputs(task, CHAT, [{"messages": CONVERSATION}]) == [CONVERSATION]
    with pytest.raises(DataError, match="Input 1"):
        inputs(task, PROMPT, [5])


def test_images(tmp_path: Path) -> None:
    from PIL import Image

    columns, task = {"image": "photo", "label": "label"}, "image-classification"
    pixels = np.zeros((4, 4, 3), np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    assert inputs(task, columns, path) == inputs(task, columns, tmp_path / "a.png") == [path]
    assert inputs(task, columns, [path, Path(path)]) == [path, path]
    assert inputs(task, columns, pd.DataFrame({"photo": [path]})) == inputs(task, columns, {"photo": path}) == [path]
    made = [
        image,
        pixels,
        [image],
        [pixels],
        {"photo": image},
        np.stack([pixels]),
        pd.DataFrame({"photo": [image]}),
    ]
    for data in made:
        (found,) = inputs(task, columns, data)
        assert Image.open(io.BytesIO(found)).size == (4, 4)
    assert len(inputs(task, columns, np.stack([pixels, pixels]))) == 2
    (item,) = inputs(task, columns, Dataset.from_dict({"photo": [path]}))
    assert item["path"] == path
    for wrong in (5, [None], np.zeros((4, 4)), {"image": path}):
        with pytest.raises(DataError, match="photo"):
            inputs(task, columns, wrong)


def test_audio(tmp_path: Path) -> None:
    import soundfile

    columns, task = {"audio": "clip", "label": "label"}, "audio-classification"
    clip = {"array": np.zeros(100, np.float32), "sampling_rate": 2000}
    for data in (clip, [clip], {"clip": clip}):
        (found,) = inputs(task, columns, data)
        assert soundfile.info(io.BytesIO(found)).samplerate == 2000
    assert inputs(task, columns, b"RIFF") == [b"RIFF"]
    with pytest.raises(DataError, match="clip"):
        inputs(task, columns, np.zeros(100))
