"""Training data of language models: prompts with completions, conversations, plain texts."""

from typing import Any

import pytest
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.data.labels.prompts import find_prompt_columns, join_prompts, read_chat, read_prompts
from hpo.errors import DataError

CHAT = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"messages": CHAT}, {"messages": "messages"}),
        ({"prompt": "a", "completion": "b"}, {"text": "prompt", "label": "completion"}),
        (
            {"instruction": "a", "input": "b", "output": "c"},
            {"text": "instruction", "text_pair": "input", "label": "output"},
        ),
        ({"text": "a"}, {"text": "text"}),
    ],
)
def test_columns_are_recognized(row: dict[str, Any], columns: dict[str, str]) -> None:
    rows = Dataset.from_dict({name: [value] for name, value in row.items()})
    assert find_prompt_columns(rows, "d.jsonl", DataConfig(path="d.jsonl"))[0] == columns


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "which column holds the prompt"),
        ({"text": "b"}, r"data\.text: .* no column 'b'"),
        ({"text": ["x", "y", "z"]}, "not 3"),
        ({"label": ["x", "y"]}, "one column of completions"),
    ],
)
def test_unknown_columns_raise_data_error(config: dict[str, Any], message: str) -> None:
    rows = Dataset.from_dict({"x": ["a"], "y": ["b"], "z": ["c"]})
    with pytest.raises(DataError, match=message):
        find_prompt_columns(rows, "d.jsonl", DataConfig.model_validate({"path": "d.jsonl", **config}))


def test_chat_is_converted_to_role_and_content() -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    assert read_chat(CHAT, "row 1") == chat
    assert read_chat(CHAT, "row 1", to_answer=True) == chat[:1]
    for value, message in (
        ([{"role": "user"}], "row 1: a message needs a `role` and a `content`"),
        (CHAT[:1], "row 1: the conversation has no message of the role 'assistant'"),
    ):
        with pytest.raises(DataError, match=message):
            read_chat(value, "row 1")


def test_rows_have_the_prompt_and_the_target() -> None:
    chats = Dataset.from_dict({"messages": [CHAT + CHAT]})
    (row,) = read(chats)[0]["train"].to_list()
    assert row["text"] == "user: hi\nassistant: hello\nuser: hi" and len(row["messages"]) == 4
    pairs, notes = read(Dataset.from_dict({"prompt": ["a", "b"], "completion": ["c", ""]}), drop_empty=True)
    assert pairs["train"].to_dict() == {"text": ["a"], "label": ["c"]} and "1 of 2 rows" in notes[0]
    assert join_prompts([["a", "b"], ["c", " "]]) == ["a\n\nc", "b"]


def read(rows: Dataset, drop_empty: bool = False) -> tuple[dict[str, Dataset], list[str]]:
    columns, _ = find_prompt_columns(rows, "d.jsonl", DataConfig(path="d.jsonl"))
    return read_prompts({"train": rows}, columns, {"train": "d.jsonl"}, drop_empty)


def read_rows(row: dict[str, Any], *more: dict[str, Any]) -> tuple[Dataset, list[str]]:
    rows = Dataset.from_list([row, *more])
    columns = find_prompt_columns(rows, "d.jsonl", DataConfig(path="d.jsonl"))[0]
    rows_read, notes = read_prompts({"train": rows}, columns, {"train": "d.jsonl"}, False)
    return rows_read["train"], notes


@pytest.mark.parametrize("name", ["label", "kto_tag"])
def test_answers_marked_as_bad_are_dropped(name: str) -> None:
    for row in ({"messages": CHAT}, {"prompt": "a", "completion": "b"}):
        rows, notes = read_rows({**row, name: True}, {**row, name: False})
        assert len(rows) == 1
        assert notes == [f"1 of 2 rows of d.jsonl dropped: '{name}' is false, a bad answer"]


def test_context_of_an_instruction_is_part_of_the_prompt() -> None:
    rows, _ = read_rows({"instruction": "who?", "context": "It is Ada.", "response": "Ada", "category": "qa"})
    assert rows["text"][:] == ["who?\n\nIt is Ada."]


def test_weights_of_messages_are_kept_and_unused_keys_noted() -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "no", "weight": 0}]
    end = [{"role": "user", "content": "again"}, {"role": "assistant", "content": "yes", "weight": 1, "id": "m1"}]
    rows, notes = read_rows({"messages": chat + end})
    assert [message["weight"] for message in rows[0]["messages"]] == [None, 0, None, None]
    assert notes == ["keys of the messages of d.jsonl that are not used: id"]
    with pytest.raises(DataError, match="no message of the role 'assistant' with a weight above 0"):
        read_rows({"messages": chat})
    with pytest.raises(DataError, match=r"row 1: the `weight` of a message is 0\.5"):
        read_chat([{"role": "assistant", "content": "a", "weight": 0.5}], "row 1")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "c"}]}]}, "row 1: .*`tool_calls`"),
        ({"messages": [{"role": "assistant", "content": None, "function_call": {"name": "f"}}]}, "`function_call`"),
        ({"messages": CHAT, "tools": [{"name": "f"}]}, "column 'tools': not supported, but filled in row 1"),
        ({"instruction": "a", "output": "b", "system": "Be brief."}, "column 'system': not supported"),
    ],
)
def test_what_would_be_left_out_of_a_conversation_raises_data_error(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_rows(row)
