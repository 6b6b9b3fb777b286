"""How counts and lists are said in errors and notes."""

from collections.abc import Sequence


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun.

    >>> counted(1, "class", "classes"), counted(3, "row")
    ('1 class', '3 rows')
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def some(values: Sequence[object], most: int = 5) -> str:
    """The first few values, and how many more there are.

    >>> some([2, 4, 17], most=2)
    '2, 4 and 1 more'
    """
    shown = ", ".join(str(value) for value in values[:most])
    return shown + (f" and {len(values) - most} more" if len(values) > most else "")


def rows_named(rows: Sequence[int]) -> str:
    """The first few row numbers, which count from 1 below the header.

    >>> rows_named([3])
    'row 3 below the header'
    """
    return f"row{'' if len(rows) == 1 else 's'} {some(rows)} below the header"
