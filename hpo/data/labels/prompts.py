"""Training data of language models: completions of prompts, conversations, or plain texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.core.format import count, first_few, row_numbers
from hpo.data.checks import find_empty, read_texts
from hpo.data.columns import column_values, columns_named, group_column, holds_strings, missing_column
from hpo.errors import DataError, enumerated

Message = dict[str, Any]  # role and content; `weight` 0 where an answer is not learned

# Compared without case.
CHATS = ("messages", "conversations", "conversation")
PAIRS = (
    (("prompt",), ("completion", "response", "answer", "output")),
    (("instruction",), ("output", "response", "completion", "answer")),
)
TEXTS = ("text", "content")
INPUTS = ("input", "context")  # what instruction data has beside its instructions
VERDICTS = ("label", "kto_tag")  # booleans: whether the answer is a good one
UNSUPPORTED = ("tools", "functions", "system", "system_prompt", "history")
CALLS = ("tool_calls", "function_call")
KEYS = {"role", "from", "content", "value", "weight", "train", *CALLS}
ASSISTANT = "assistant"
ROLES = {"human": "user", "gpt": ASSISTANT, "bot": ASSISTANT, "model": ASSISTANT}


def find_prompt_columns(rows: Dataset, origin: str, config: DataConfig) -> tuple[dict[str, str], list[str]]:
    """Return role → column, named or recognized, and notes. Raises `DataError`.

    The roles are messages; or text, optionally text_pair, and label; or text alone.
    """
    named = _named_texts(rows, origin, config)
    if named:
        roles = ["messages"] if is_chat(rows, named[0]) else ["text", "text_pair"]
        found = dict(zip(roles, named, strict=False))
        return found | ({"label": str(config.label)} if config.label else {}), []
    found = recognize_prompts(rows, str(config.label) if config.label else None)
    if not found:
        raise DataError(
            f"{origin}: which column holds the prompt, and which the completion? Columns: "
            f"{enumerated(rows.column_names)}. Name them in `data.text` and `data.label`; or a column of messages, or "
            "of plain texts, in `data.text` alone."
        )
    return found, [f"{role}: recognized in column '{column}'" for role, column in found.items()]


def recognize_prompts(rows: Dataset, label: str | None = None) -> dict[str, str]:
    """Return role → column, as `find_prompt_columns`, recognized by name; empty where no column is recognized."""
    chats = [name for name in columns_named(rows, CHATS) if is_chat(rows, name)]
    if chats and label is None:
        return {"messages": chats[0]}
    for prompts, completions in PAIRS:
        prompt = next(iter(columns_named(rows, prompts)), None)
        completion = label or next(iter(columns_named(rows, completions)), None)
        if prompt is not None and completion not in (None, prompt):
            inputs = [name for name in columns_named(rows, INPUTS) if holds_strings(rows, name)]
            return {"text": prompt, **({"text_pair": inputs[0]} if inputs else {}), "label": str(completion)}
    text = columns_named(rows, TEXTS)
    return {"text": text[0]} if text and len(rows.column_names) == 1 else {}


def is_chat(rows: Dataset, column: str) -> bool:
    """Return whether a column's values are lists of messages."""
    kind = rows.data.table.schema.field(column).type
    return bool((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_struct(kind.value_type))


def read_prompts(
    splits: Mapping[str, Dataset], columns: Mapping[str, str], origins: Mapping[str, str], drop_empty: bool
) -> tuple[dict[str, Dataset], list[str]]:
    """Return rows of `text` and the target: `label` (a completion), `messages`, or `text` itself; and notes.

    The `text` of a conversation is everything before its last answer. Raises `DataError` naming file and row.
    """
    read, notes = {}, []
    for split, rows in splits.items():
        where = origins[split]
        _check_unsupported(rows, columns, where)
        values = _read_columns(rows, columns, where)
        empty, dropped = find_empty([values.get("label", values["text"])], where, drop_empty)
        bad, rejected = _find_bad(rows, columns, where)
        notes += [*dropped, *rejected, *_unused_keys(rows, columns, where)]
        kept = [index for index in range(len(rows)) if index not in empty | bad]
        if not kept:
            raise DataError(f"{where}: every row is empty{' or marked as a bad answer' if bad else ''}.")
        read[split] = Dataset.from_dict(
            {name: [column[index] for index in kept] for name, column in values.items()} | group_column(rows, kept)
        )
    return read, notes


def join_prompts(columns: Sequence[Sequence[str]]) -> list[str]:
    """Return the prompts of one or two columns, joined by an empty line where both have text."""
    return ["\n\n".join(part for part in row if part.strip()) for row in zip(*columns, strict=True)]


def read_chat(value: Any, where: str, to_answer: bool = False) -> list[Message]:
    """Return the messages of a conversation as dicts of role and content; the assistant's are the targets.

    With `to_answer`, the conversation is a prompt: an answer at its end is removed. Raises `DataError`.
    """
    chat: list[Message] = []
    for given in value or ():
        role, content = given.get("role", given.get("from")), given.get("content", given.get("value"))
        if any(given.get(key) for key in CALLS):
            raise DataError(
                f"{where}: a message calls a tool (`{next(key for key in CALLS if given.get(key))}`): tool calls are "
                "not supported. Write the call as text in the message's `content`, or remove these conversations."
            )
        if not isinstance(role, str) or not isinstance(content, str):
            raise DataError(f"{where}: a message needs a `role` and a `content`, both strings, not {given!r:.200}.")
        chat.append({"role": ROLES.get(role.lower(), role.lower()), "content": content, **_weight(given, where)})
    if to_answer:
        return chat[:-1] if chat and chat[-1]["role"] == ASSISTANT else chat
    if not any(one["role"] == ASSISTANT and one["content"].strip() and is_learned(one) for one in chat):
        unlearned = "with a weight above 0" if any(not is_learned(one) for one in chat) else ""
        raise DataError(
            f"{where}: the conversation has no message of the role '{ASSISTANT}'{unlearned and f' {unlearned}'}, so no "
            "target."
        )
    return chat


def is_learned(message: Message) -> bool:
    """Return whether an assistant's message is a target: its `weight` is not 0."""
    return message.get("weight") is None or bool(message["weight"])


def _weight(given: Mapping[str, Any], where: str) -> dict[str, int]:
    """Return {"weight": 0} for a message that is not to be learned: OpenAI's `weight: 0`, or `train: false`."""
    for key in ("weight", "train"):
        value = given.get(key)
        if value is None:
            continue
        if value not in (0, 1):
            raise DataError(f"{where}: the `{key}` of a message is {value!r}: 0 (not learned) and 1 are allowed.")
        if not value:
            return {"weight": 0}
    return {}


def _check_unsupported(rows: Dataset, columns: Mapping[str, str], where: str) -> None:
    """Raise `DataError` for a column that is part of the prompt and would be left out."""
    for name in columns_named(rows, UNSUPPORTED, besides=list(columns.values())):
        filled = [row for row, value in enumerate(column_values(rows, name), 1) if value]
        if filled:
            raise DataError(
                f"{where}, column '{name}': not supported, but filled in {row_numbers(filled)}. Write its text into "
                "the prompts or messages (a message of the role 'system', for example), or remove or rename the column."
            )


def verdict_columns(rows: Dataset, columns: Mapping[str, str]) -> tuple[str, ...]:
    """Return the columns, besides those with a role, of booleans that mark an answer as good or bad."""
    named = columns_named(rows, VERDICTS, besides=list(columns.values()))
    return tuple(name for name in named if pa.types.is_boolean(rows.data.table.schema.field(name).type))


def _find_bad(rows: Dataset, columns: Mapping[str, str], where: str) -> tuple[set[int], list[str]]:
    """Return the indices of rows whose answer is marked as bad (`label: false`, as for KTO), and a note."""
    for name in verdict_columns(rows, columns):
        bad = {index for index, value in enumerate(column_values(rows, name)) if value is False}
        share = f"{len(bad)} of {count(len(rows), 'row')} of {where}"
        return bad, [f"{share} dropped: '{name}' is false, a bad answer"] if bad else []
    return set(), []


def _unused_keys(rows: Dataset, columns: Mapping[str, str], where: str) -> list[str]:
    """Return a note on keys of messages that are not used."""
    if "messages" not in columns:
        return []
    fields = rows.data.table.schema.field(columns["messages"]).type.value_type
    unused = [field.name for field in fields if field.name not in KEYS]
    return [f"keys of the messages of {where} that are not used: {first_few(unused)}"] if unused else []


def _named_texts(rows: Dataset, origin: str, config: DataConfig) -> tuple[str, ...]:
    """Return the columns that `config.text` names, and check that they and the label's exist."""
    if isinstance(config.label, tuple):
        raise DataError("data.label: this task learns one column of completions.")
    named = config.text if isinstance(config.text, tuple) else (config.text,) if config.text else ()
    for key, names in (("data.text", named), ("data.label", (config.label,) if config.label else ())):
        for name in names:
            if name not in rows.column_names:
                raise missing_column(key, name, rows.column_names, origin)
    if len(named) > 2:
        raise DataError(f"data.text: one column of prompts, or two, of prompts and their inputs, not {len(named)}.")
    return named


def _read_columns(rows: Dataset, columns: Mapping[str, str], where: str) -> dict[str, list[Any]]:
    if "messages" in columns:
        chats = [
            read_chat(value, f"{where}, row {row}")
            for row, value in enumerate(column_values(rows, columns["messages"]), 1)
        ]
        return {"text": [_before_last_answer(chat) for chat in chats], "messages": chats}
    prompts = join_prompts(
        [read_texts(rows, columns[role], where) for role in ("text", "text_pair") if role in columns]
    )
    if "label" not in columns:
        return {"text": prompts}
    return {"text": prompts, "label": read_texts(rows, columns["label"], where)}


def _before_last_answer(chat: Sequence[Message]) -> str:
    last = max(index for index, message in enumerate(chat) if message["role"] == ASSISTANT)
    return "\n".join(f"{message['role']}: {message['content']}" for message in chat[:last])
