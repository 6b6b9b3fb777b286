"""Conversion of what a user passes to `predict` into the inputs that a task's `predict` takes.

Nothing is guessed: what is not clearly an input, or a row with the columns that the model was trained on, raises.
"""

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, disable_progress_bars

from hpo.data.columns import missing_column
from hpo.data.in_memory import is_table
from hpo.data.media.files import read_items
from hpo.data.optional import require_module
from hpo.errors import DataError
from hpo.tasks.base import Task

MEDIA = ("image", "audio")


def read_inputs(task: Task, data: Any, columns: Mapping[str, Any]) -> list[Any]:
    """Return the inputs in `data`, in order, as `task.predict` takes them.

    `columns` maps roles to the columns that the model was trained on. `data` is one input, or a list, Series or array
    of them; or rows with these columns: a dict or several, a DataFrame or a `Dataset`. One input is

    - a text; for models that read several, a tuple of them, `(question, context)` for example;
    - `(question, [choice, choice, …])` for multiple choice, with a context first where the model reads one;
    - a text or a list of words for token classification;
    - a prompt, or a conversation: a list of messages `{"role": …, "content": …}`;
    - a path, the bytes of a file, a PIL image or an array of pixels (uint8, [height, width, 3]) for images;
    - a path, the bytes of a file, or `{"array": …, "sampling_rate": …}` for audio.

    Raises `DataError` for anything else, naming the input.
    """
    if is_table(data):
        return _from_table(task, data, columns)
    if _is_one_input(task, data, columns):
        data = [data]
    if not isinstance(data, list | tuple) and not hasattr(data, "tolist"):  # arrays and Series have it
        raise DataError(f"{_expects(task, columns).capitalize()}, not {_short(data)}.")
    is_array = getattr(data, "ndim", 1) > 1 and str(getattr(data, "dtype", "")) == "uint8"
    given = data.tolist() if hasattr(data, "tolist") and not is_array else list(data)
    if given and all(_is_row(value) for value in given):
        return _from_rows(task, given, columns)
    return [_checked(task, value, columns, number) for number, value in enumerate(given, 1)]


def _is_one_input(task: Task, data: Any, columns: Mapping[str, Any]) -> bool:
    """Return whether `data` is a single input or row rather than a sequence of them."""
    if isinstance(data, str | bytes | Path) or _is_image(data) or _is_row(data) or _is_clip(data):
        return True
    if isinstance(data, list) and _is_conversation(data):
        return list in task.input_types
    if isinstance(data, tuple):  # of several inputs, each would be a tuple itself
        return _parts(task, columns) > 1 and not any(isinstance(value, tuple | Mapping) for value in data)
    return False


def _parts(task: Task, columns: Mapping[str, Any]) -> int:
    """Return how many values one input is made of: 1 for a text, 2 for a pair, 2 or 3 with choices."""
    if len(task.example_inputs(columns)) == 1:
        return 1
    return len([role for role in columns if role != "label"])


def _from_table(task: Task, table: Any, columns: Mapping[str, Any]) -> list[Any]:
    names = _column_names(table)
    first = {name: table[name].iloc[0] if hasattr(table, "iloc") else table[0][name] for name in names if len(table)}
    _check_columns(columns, [*names, *_nested(first)])
    if len(table) == 0:
        return []
    kind = next((role for role in MEDIA if role in columns), None)
    if kind is not None:
        if isinstance(table, Dataset):
            return list(read_items(table, columns[kind], [Path()], "the dataset"))
        values = table[columns[kind]].tolist()
        return [_media(value, task, columns, number) for number, value in enumerate(values, 1)]
    return _through_file(task, table, columns)


def _from_rows(task: Task, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Any]) -> list[Any]:
    for number, row in enumerate(rows, 1):
        _check_columns(columns, [*row, *_nested(row)], number)
    kind = next((role for role in MEDIA if role in columns), None)
    if kind is not None:
        return [_media(row[columns[kind]], task, columns, number) for number, row in enumerate(rows, 1)]
    roles = [role for role in columns if role != "label"]
    read = dict.fromkeys(name for row in rows for name in row if any(_reads(columns, role, name) for role in roles))
    names = [*read, *(name for name, value in rows[0].items() if name not in read and isinstance(value, Mapping))]
    try:
        table = Dataset.from_list([{name: row.get(name) for name in names} for row in rows])
    except (ValueError, TypeError, ArithmeticError) as error:  # Arrow's errors are ValueErrors and TypeErrors
        raise DataError(f"{_expects(task, columns)}; these rows are not a table: {error}") from error
    return _through_file(task, table, columns)


def _through_file(task: Task, table: Any, columns: Mapping[str, Any]) -> list[Any]:
    """Read a table as the same rows are read from a file, with its checks of every cell."""
    present = _column_names(table)
    for role, column in columns.items():
        if role not in ("label", "choices") and column in present:
            for number, value in enumerate(table[column], 1):
                if value is None or (isinstance(value, float) and value != value):  # NaN
                    raise DataError(f"Input {number}: its '{column}' is missing.")
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"
        try:
            table.to_parquet(file, index=False) if hasattr(table, "iloc") else table.to_parquet(str(file))
        except (ValueError, TypeError) as error:
            raise DataError(f"{_expects(task, columns)}; the table has values of other types: {error}") from error
        return task.read_inputs(file, columns)


def _column_names(table: Any) -> list[str]:
    return list(table.columns) if hasattr(table, "iloc") else list(table.column_names)


def _nested(row: Mapping[str, Any]) -> list[str]:
    """Return the keys one level down, as datasets of translations have them: `{"translation": {"en": …}}`."""
    return [key for value in row.values() if isinstance(value, Mapping) for key in value]


def _reads(columns: Mapping[str, Any], role: str, name: str) -> bool:
    """Return whether `name` is the column of `role`, or one of the numbered columns of choices."""
    return name == columns[role] or (role == "choices" and name.startswith(str(columns[role])))


def _check_columns(columns: Mapping[str, Any], names: Sequence[str], row: int | None = None) -> None:
    what = "the table" if row is None else f"Input {row}"
    for role, column in columns.items():
        if role != "label" and not any(_reads(columns, role, str(name)) for name in names):
            raise missing_column(
                what, str(column), [str(name) for name in names], "the row" if row is not None else what
            )


def _checked(task: Task, value: Any, columns: Mapping[str, Any], number: int) -> Any:
    """Return one input that is not a row, in the form that `task.predict` takes. Raises `DataError`."""
    if any(role in columns for role in MEDIA):
        return _media(value, task, columns, number)
    parts = _parts(task, columns)
    if parts > 1:
        choices = "choices" in columns
        texts = value[: parts - choices] if isinstance(value, tuple | list) else ()
        right = isinstance(value, tuple | list) and len(value) == parts and all(isinstance(text, str) for text in texts)
        if right and (not choices or _is_texts(value[-1], 2)):
            return (*texts, list(value[-1])) if choices else tuple(value)
    elif isinstance(value, str):
        return value
    elif list in task.input_types and (_is_texts(value) or _is_conversation(value)):
        return list(value)
    raise DataError(f"Input {number}: {_expects(task, columns)}, not {_short(value)}.")


def _media(value: Any, task: Task, columns: Mapping[str, Any], number: int) -> Any:
    """Return a file's path, bytes, or item. Raises `DataError`."""
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping) and ("bytes" in value or "path" in value):
        return {"bytes": value.get("bytes"), "path": value.get("path")}
    if "image" in columns and _is_image(value):
        return _as_png(value)
    if "audio" in columns and _is_clip(value):
        return _as_wav(value)
    raise DataError(f"Input {number}: {_expects(task, columns)}, not {_short(value)}.")


def _is_row(value: Any) -> bool:
    return isinstance(value, Mapping) and not _is_message(value) and not _is_clip(value)


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and {"role", "content"} <= set(value)


def _is_conversation(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) > 0 and all(_is_message(message) for message in value)


def _is_clip(value: Any) -> bool:
    return isinstance(value, Mapping) and {"array", "sampling_rate"} <= set(value)


def _is_image(value: Any) -> bool:
    if type(value).__module__.startswith("PIL.") and hasattr(value, "convert"):
        return True
    dtype, shape = str(getattr(value, "dtype", "")), tuple(getattr(value, "shape", ()))
    return dtype == "uint8" and (len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3, 4)))


def _is_texts(value: Any, least: int = 0) -> bool:
    return isinstance(value, tuple | list) and len(value) >= least and all(isinstance(text, str) for text in value)


def _as_png(image: Any) -> bytes:
    Image = require_module("PIL.Image", "vision", "an image")
    if not hasattr(image, "convert"):
        image = Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    page = io.BytesIO()
    image.save(page, format="PNG")
    return page.getvalue()


def _as_wav(clip: Mapping[str, Any]) -> bytes:
    soundfile = require_module("soundfile", "audio", "an audio clip")
    page = io.BytesIO()
    soundfile.write(page, np.asarray(clip["array"], np.float32), int(clip["sampling_rate"]), "FLOAT", format="WAV")
    return page.getvalue()


def _expects(task: Task, columns: Mapping[str, Any]) -> str:
    """Describe what the model reads: `the model reads pairs of 'question' and 'context'`."""
    return f"the model reads {task.describe_inputs(columns)}"


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 60 else f'{text[:59]}…'}"
