"""Formatting of numbers, durations, sizes, parameters, counts and lists, for the console, reports and messages."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

NOTHING = "–"


def number(value: Any) -> str:
    """Return a number with up to four significant digits, any other value as `str`.

    >>> number(3.2182e-05), number(0.91234), number(32), number(None)
    ('3.2e-05', '0.9123', '32', '–')
    """
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if value and math.isfinite(value) and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.4g}"


def score(value: float | None) -> str:
    """Return a metric's value with three decimals, so that columns of scores align.

    >>> score(0.91), score(None)
    ('0.910', '–')
    """
    if value is None:
        return NOTHING
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.4g}"


def interval(bounds: Any) -> str:
    """Return the bounds of a score's interval; an empty string where there is none.

    >>> interval([0.9, 0.92])
    '0.900 to 0.920'
    """
    return f"{score(bounds[0])} to {score(bounds[1])}" if bounds else ""


def duration(seconds: float | None) -> str:
    """Return seconds in the two largest units that apply.

    >>> duration(0.42), duration(84), duration(7380)
    ('0.4 s', '1 m 24 s', '2 h 03 m')
    """
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(many_bytes: int) -> str:
    """Return bytes in KB, MB or GB (powers of 1024).

    >>> size(900), size(3_500_000), size(20 * 2**30)
    ('1 KB', '3 MB', '20.0 GB')
    """
    if many_bytes >= 2**30:
        return f"{many_bytes / 2**30:.1f} GB"
    return f"{many_bytes / 2**20:.0f} MB" if many_bytes >= 2**20 else f"{many_bytes / 2**10:.0f} KB"


def parameters(params: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters as strings, the model first, without those that are None (the model's own default).

    `frozen_share` is omitted where `frozen_layers`, the count it resolved to, is present.
    """
    shown = {key: value for key, value in params.items() if value is not None}
    if "frozen_layers" in shown:
        shown.pop("frozen_share", None)
    order = sorted(shown, key=lambda key: key != "model")
    return {key: number(shown[key]) for key in order}


def count(many: int, singular: str, plural: str = "") -> str:
    """Return a count with its noun.

    >>> count(1, "trial"), count(2, "trial")
    ('1 trial', '2 trials')
    """
    return f"{many:,} {singular if many == 1 else plural or singular + 's'}"


def first_few(values: Sequence[object], most: int = 5) -> str:
    """Return the first `most` values, and how many more there are.

    >>> first_few([2, 4, 17], most=2)
    '2, 4 and 1 more'
    """
    shown = ", ".join(str(value) for value in values[:most])
    return shown + (f" and {len(values) - most} more" if len(values) > most else "")


def row_numbers(rows: Sequence[int]) -> str:
    """Return the first few row numbers, counted from 1 below the header.

    >>> row_numbers([3])
    'row 3 below the header'
    """
    return f"row{'' if len(rows) == 1 else 's'} {first_few(rows)} below the header"
