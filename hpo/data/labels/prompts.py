"""Reading what a language model is to say: completions of prompts, conversations, or plain texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.data.checks import find_empty, read_texts
from hpo.data.columns import column_values, columns_named, group_column, holds_strings, missing_column
from hpo.errors import DataError

Message = dict[str, str]

# Compared without case.
CHATS = ("messages", "conversations", "conversation")
PAIRS = (
    (("prompt",), ("completion", "response", "answer", "output")),
    (("instruction",), ("output", "response", "completion", "answer")),
)
TEXTS = ("text", "content")
BESIDE = "input"  # what some data has beside its instructions
SAYS = "assistant"
OTHER_NAMES = {"human": "user", "gpt": SAYS, "bot": SAYS, "model": SAYS}


def find_prompt_columns(rows: Dataset, origin: str, config: DataConfig) -> tuple[dict[str, str], list[str]]:
    """role → column: messages; or text (and text_pair) and label; or text alone. And notes. Raises `DataError`."""
    if isinstance(config.label, tuple):
        raise DataError("data.label: this task learns one column of completions.")
    named = config.text if isinstance(config.text, tuple) else (config.text,) if config.text else ()
    for key, names in (("data.text", named), ("data.label", (config.label,) if config.label else ())):
        for name in names:
            if name not in rows.column_names:
                raise missing_column(key, name, rows.column_names, origin)
    if len(named) > 2:
        raise DataError(f"data.text: one column of prompts, or two with what stands beside; these are {len(named)}.")
    if named:
        roles = ["messages"] if is_chat(rows, named[0]) else ["text", "text_pair"]
        found = dict(zip(roles, named, strict=False))
        return found | ({"label": config.label} if config.label else {}), []
    found = recognize_prompts(rows, config.label)
    if not found:
        raise DataError(
            f"{origin}: which column holds the prompt, and which the completion? Columns: "
            f"{', '.join(rows.column_names)}. Name them in `data.text` and `data.label`; or a column of messages, or "
            "of plain texts, in `data.text` alone."
        )
    return found, [f"{role}: recognized in column '{column}'" for role, column in found.items()]


def recognize_prompts(rows: Dataset, label: str | None = None) -> dict[str, str]:
    """The columns as `find_prompt_columns` gives them, by their names; empty where there are none such."""
    chat = next((name for name in columns_named(rows, CHATS) if is_chat(rows, name)), None)
    if chat is not None and label is None:
        return {"messages": chat}
    for prompts, completions in PAIRS:
        prompt = next(iter(columns_named(rows, prompts)), None)
        completion = label or next(iter(columns_named(rows, completions)), None)
        if prompt is not None and completion is not None and completion != prompt:
            beside = [name for name in columns_named(rows, (BESIDE,)) if holds_strings(rows, name)]
            pair = {"text_pair": beside[0]} if beside else {}
            return {"text": prompt, **pair, "label": completion}
    text = columns_named(rows, TEXTS)
    return {"text": text[0]} if text and len(rows.column_names) == 1 else {}


def is_chat(rows: Dataset, column: str) -> bool:
    """Whether a column holds lists of messages."""
    kind = rows.data.table.schema.field(column).type
    return bool((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_struct(kind.value_type))


def read_prompts(
    splits: Mapping[str, Dataset], columns: Mapping[str, str], origins: Mapping[str, str], drop_empty: bool
) -> tuple[dict[str, Dataset], list[str]]:
    """Rows as `text` and what is learnt: `label` (a completion), `messages`, or neither: the text itself; and notes.

    Of a conversation, `text` is what was said before its last answer. Raises `DataError` naming file and row.
    """
    read, notes = {}, []
    for split, rows in splits.items():
        where = origins[split]
        made = _read(rows, columns, where)
        told = made.get("label", made["text"])
        empty, said = find_empty([told], where, drop_empty)
        notes += said
        kept = [place for place in range(len(rows)) if place not in empty]
        if not kept:
            raise DataError(f"{where}: every row is empty.")
        read[split] = Dataset.from_dict(
            {name: [values[place] for place in kept] for name, values in made.items()} | group_column(rows, kept)
        )
    return read, notes


def _read(rows: Dataset, columns: Mapping[str, str], where: str) -> dict[str, list[Any]]:
    if "messages" in columns:
        chats = [
            read_chat(value, f"{where}, row {row}")
            for row, value in enumerate(column_values(rows, columns["messages"]), 1)
        ]
        before = [chat[: max(place for place, one in enumerate(chat) if one["role"] == SAYS)] for chat in chats]
        return {"text": ["\n".join(f"{m['role']}: {m['content']}" for m in chat) for chat in before], "messages": chats}
    prompts = join_prompts(
        [read_texts(rows, columns[role], where) for role in ("text", "text_pair") if role in columns]
    )
    if "label" not in columns:
        return {"text": prompts}
    return {"text": prompts, "label": read_texts(rows, columns["label"], where)}


def join_prompts(columns: Sequence[Sequence[str]]) -> list[str]:
    """Prompts of one column, or of two: an empty line stands between what is in both."""
    return ["\n\n".join(part for part in row if part.strip()) for row in zip(*columns, strict=True)]


def read_chat(value: Any, where: str, to_answer: bool = False) -> list[Message]:
    """Messages as role and content, those of the assistant being learnt. Raises `DataError`.

    `to_answer`: they are to be answered, so that an answer at the end is left out.
    """
    chat = []
    for given in value or ():
        role, content = given.get("role", given.get("from")), given.get("content", given.get("value"))
        if not isinstance(role, str) or not isinstance(content, str):
            raise DataError(f"{where}: a message needs a `role` and a `content`, both texts; this is {given!r:.200}.")
        chat.append({"role": OTHER_NAMES.get(role.lower(), role.lower()), "content": content})
    if to_answer:
        return chat[:-1] if chat and chat[-1]["role"] == SAYS else chat
    if not any(one["role"] == SAYS and one["content"].strip() for one in chat):
        raise DataError(f"{where}: the conversation holds no message of the role '{SAYS}': there is nothing to learn.")
    return chat
