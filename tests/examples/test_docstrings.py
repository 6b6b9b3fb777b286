"""The quickstart's data is reproducible, and has no names of libraries, near-duplicates or files in two splits."""

import csv
import importlib.util
import random
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "docstrings.py"
TOPICS = {
    "pandas": "table column row index group merge label missing value sort join frequency date period level",
    "torch": "tensor gradient layer device kernel backward module weight graph stream batch loss epoch norm",
}
COPIED = "This very paragraph was copied by hand into each and every file of both of the packages, word for word."


@pytest.fixture
def docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with two small generated packages instead of the installed ones."""
    spec = importlib.util.spec_from_file_location("docstrings", SCRIPT)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    rng = random.Random(0)
    packages = {}
    for label, words in TOPICS.items():
        packages[label] = tmp_path / "site" / label
        for file in range(60):
            texts = [" ".join(rng.choices(words.split(), k=14)) + f" of {label}." for _ in range(4)]
            path = packages[label] / f"part{file % 4}" / f"module{file}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('"""' + "\n\n".join([*texts, COPIED, ">>> a_call()\n1"]) + '"""\n')
    (packages["pandas"] / "broken.py").write_text("def (:\n")
    monkeypatch.setattr(script, "LIBRARIES", {label: label for label in TOPICS})
    monkeypatch.setattr(script, "ROWS_PER_LABEL", {"train": 40, "validation": 10, "test": 10})
    monkeypatch.setattr(script, "installed_packages", lambda: packages)
    monkeypatch.setattr(script, "recipe", lambda: {"pandas": "1", "torch": "2"})
    return script


def rows(folder: Path) -> dict[str, list[dict[str, str]]]:
    return {path.stem: list(csv.DictReader(path.read_text().splitlines())) for path in sorted(folder.glob("*.csv"))}


def test_build_is_reproducible_and_keeps_files_that_are_up_to_date(docstrings: ModuleType, tmp_path: Path) -> None:
    first, second = docstrings.build(tmp_path / "one"), docstrings.build(tmp_path / "two")
    assert first.rows == {"train": 80, "validation": 20, "test": 20}
    assert first.fingerprint == second.fingerprint
    assert 0.5 < first.tfidf_test_accuracy <= 1
    written = (tmp_path / "one" / "train.csv").stat().st_mtime_ns
    assert docstrings.build(tmp_path / "one").was_up_to_date
    assert (tmp_path / "one" / "train.csv").stat().st_mtime_ns == written
    (tmp_path / "one" / "test.csv").write_text("text,label\n")
    repaired = docstrings.build(tmp_path / "one")
    assert (repaired.was_up_to_date, repaired.fingerprint) == (False, first.fingerprint)


def test_rows_have_no_names_no_code_and_no_near_duplicates(docstrings: ModuleType, tmp_path: Path) -> None:
    splits = rows(docstrings.build(tmp_path / "data").folder)
    texts = [row["text"] for split in splits.values() for row in split]
    assert not [text for text in texts if any(name in text for name in (*TOPICS, ">>>", "a_call"))]
    triples = [{tuple(words[i : i + 3]) for i in range(len(words) - 2)} for words in (t.lower().split() for t in texts)]
    similar = [
        (texts[i], texts[j])
        for i in range(len(texts))
        for j in range(i)
        if len(triples[i] & triples[j]) > 0.5 * len(triples[i] | triples[j])
    ]
    assert similar == []


def test_first_of_near_duplicates_is_kept(docstrings: ModuleType) -> None:
    other = "Sort the rows of a table by the values in one or several of its columns, in place."
    assert docstrings.near_duplicates([COPIED, other, COPIED + " Indeed so.", other.upper()]) == [2, 3]
    assert docstrings.near_duplicates([other, COPIED + " Indeed so.", COPIED], [COPIED]) == [1, 2]


def test_every_file_belongs_to_one_split(docstrings: ModuleType) -> None:
    splits: dict[str, set[str]] = {}
    for label, package in docstrings.installed_packages().items():
        for path in docstrings.source_files(package):
            texts = set(docstrings.paragraphs(path)) - {COPIED}
            for row in docstrings.gather(label, package):
                if row.text in texts:
                    splits.setdefault(path.as_posix(), set()).add(row.split)
    assert {split for found in splits.values() for split in found} == {"train", "validation", "test"}
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize(
    ("written", "masked"),
    [
        ("Works like NumPy's own, see numpy.linalg.norm(x) and np.dot.", "Works like NAME 's own, see NAME and NAME."),
        ("A :class:`~pandas.DataFrame` or a ``Series``", "A NAME or a Series"),
        (".. versionadded:: 2.1\nSet `max_iter` as in version 1.5 of scikit-learn", "Set NAME as in of NAME"),
        ("PyTorch, SQLAlchemy and Hugging Face transformers", "NAME and NAME"),
        ("See https://scipy.org/doc and [1]_ for more", "See and for more"),
        ("pass, spread, number, transform and torchlight", "pass, spread, number, transform and NAME"),
    ],
)
def test_masking(docstrings: ModuleType, written: str, masked: str) -> None:
    assert docstrings.mask(written) == masked
