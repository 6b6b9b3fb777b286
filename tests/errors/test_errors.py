"""The tree documented in `hpo.errors` is that of its classes; each documents when it is raised and its exit code."""

import re

import pytest

import hpo.errors
from hpo.errors import HpoError, did_you_mean
from hpo.storage import database_file, retry, transactions


def documented() -> dict[str, str]:
    """The parent of each class in the drawing."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (hpo.errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+)(?: .*)?$", line)
        if match:
            depth = len(match[1]) // 4
            above = [*above[:depth], match[2]]
            parents[match[2]] = above[-2] if depth else "Exception"
    return parents


def subclasses(kind: type[HpoError]) -> list[type[HpoError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in subclasses(child))]


def test_the_drawing_is_the_tree() -> None:
    assert (
        retry.StorageUnavailable and transactions.BudgetSpent and database_file.DatabaseRemoved
    )  # imported: theirs are part of it
    own = [kind for kind in subclasses(HpoError) if kind.__module__.startswith("hpo.")]
    assert documented() == {kind.__name__: kind.__bases__[0].__name__ for kind in own}


@pytest.mark.parametrize("kind", [kind for kind in subclasses(HpoError) if kind.__module__ == "hpo.errors"])
def test_each_class_documents_its_exit_code(kind: type[HpoError]) -> None:
    documented = re.findall(r"Exit code (\d+)\.|exit status: (\d+)", kind.__doc__ or "")
    assert [int(first or second) for first, second in documented] == [kind.exit_code]


@pytest.mark.parametrize(("wrong", "hint"), [("Budgets", " Did you mean 'budget'?"), ("x", "")])
def test_did_you_mean_names_the_nearest(wrong: str, hint: str) -> None:
    assert did_you_mean(wrong, ["budget", "seed"]) == hint
