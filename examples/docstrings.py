"""Create the quickstart's data: docstring paragraphs, each labeled with the library that it is from.

    python examples/docstrings.py            # writes examples/data/docstrings/{train,validation,test}.csv

The paragraphs are parsed, without importing anything, from the sources of eight packages that every installation of hpo
has, so the data is created offline and is identical for the same versions. Library names, code and dotted paths are
masked, near-duplicates are removed, and all paragraphs of a source file are in the same split.
"""

from __future__ import annotations

import argparse
import ast
import csv
import hashlib
import importlib.metadata
import importlib.util
import inspect
import io
import json
import os
import re
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# label (the distribution's name) -> import name
LIBRARIES = {
    "networkx": "networkx",
    "numpy": "numpy",
    "pandas": "pandas",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "sqlalchemy": "sqlalchemy",
    "torch": "torch",
    "transformers": "transformers",
}
ROWS_PER_LABEL = {"train": 500, "validation": 90, "test": 125}  # 4,000, 720 and 1,000 rows
PARAGRAPHS_PER_FILE = 16  # at most, so that no long file dominates its library
MIN_WORDS, MAX_WORDS = 10, 60
NEAR_DUPLICATE = 0.5  # Jaccard index of two texts' sets of word triples
DATA = Path(__file__).resolve().parent / "data" / "docstrings"
SKIPPED_FOLDERS = {"test", "tests", "testing", "__pycache__", "_vendor", "site-packages", "dist-packages"}

# Names, aliases and makers of the libraries in any spelling: with them, classification would be trivial.
LIBRARY_NAMES = re.compile(
    r"(?<![a-z])(networkx|nx|num(?:py|eric)\d*|np|pandas|pd|scikit[- ]?learn|sk-?learn|scikits?|scipy|scpy|sqlalchemy|"
    r"sql ?alchemy|sqla|sa|(?:py)?torch\w*|aten|caffe2?|libtorch|transformers|hugging ?face|matplotlib|plt|"
    r"array api|dbapi|pep[- ]?249)(?:['’]s)?(?![a-z])",
    re.IGNORECASE,
)
REPLACEMENTS = [
    (re.compile(r"\.\. [\w:-]+::[^\n]*"), " "),  # directives, versionadded among them
    (re.compile(r"(?::[\w:+-]+:)?`+~?([^`<]*?)\s*(?:<[^`]*>)?`+_{0,2}"), r"\1"),  # roles, code, links: keep the text
    (re.compile(r":(?:param|type|arg|returns?|rtype|raises?|keyword)\b[^:\n]*:"), " "),  # Sphinx's field lists
    (re.compile(r"\b(?:https?|ftp)://\S+|\bwww\.\S+"), " "),
    (re.compile(r"\[[\w#*]{1,12}\]_?"), " "),  # citations
    (re.compile(r"\b(?:versions?|since|v)\s*\d[\w.]*", re.IGNORECASE), " "),
    (re.compile(r"[\w./\\-]+\.(?:py|pyx|cpp|cu|c|h|rst|md|json)\b"), " NAME "),
    (re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?:\([^()]*\))?"), " NAME "),  # dotted paths and calls on them
    (
        re.compile(r"\b\w*[a-z0-9][A-Z]\w*\b|\b[A-Za-z]\w*_\w*\b|\b_\w+\b|\b\w+\([^()]*\)"),
        " NAME ",
    ),  # identifiers, calls
]
HEADINGS = re.compile(
    r"^(args|arguments|parameters|returns?|raises|yields?|notes?|examples?|see also|references?|attributes|"
    r"other parameters|warns|warnings?|methods|usage|todo|inputs?|outputs?|keyword arguments|shape)\s*:*\s*$",
    re.IGNORECASE,
)


class Row(NamedTuple):
    text: str
    label: str
    split: str


class Summary(NamedTuple):
    folder: Path
    rows: dict[str, int]
    tfidf_test_accuracy: float
    fingerprint: str
    was_up_to_date: bool


def docstrings(source: str) -> Iterator[str]:
    """Yield all docstrings of a module's source without indentation; none if it does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # a template, or a test of the parser itself
        return
    yield from docstrings_of(tree)


def docstrings_of(node: ast.AST) -> Iterator[str]:
    """Yield the docstrings of a node and of the statements inside it."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node)
        if docstring:
            yield docstring
    for field in ("body", "handlers", "orelse", "finalbody"):
        inner = getattr(node, field, None)
        for child in inner if isinstance(inner, list) else ():
            yield from docstrings_of(child)


def prose(docstring: str) -> Iterator[str]:
    """Yield a docstring's paragraphs of English as masked plain text, without code, tables and headings."""
    for block in re.split(r"\n\s*\n", docstring):
        lines = [line.strip() for line in inspect.cleandoc(block).splitlines()]
        if any(line.startswith((">>>", "...", "```", "|", "+--", "$ ", "<")) for line in lines):
            continue
        kept = [line for line in lines if not HEADINGS.match(line) and not re.fullmatch(r"[-=~^*#\s]+", line)]
        text = mask(" ".join(kept))
        words = text.split()[:MAX_WORDS]
        plain = sum(word.strip(".,;:()'\"!?").isalpha() and word != "NAME" for word in words)
        if len(words) >= MIN_WORDS and plain >= 0.75 * len(words):
            yield " ".join(words)


def mask(text: str) -> str:
    """Replace code, dotted paths, identifiers and the libraries' names by NAME."""
    for pattern, replacement in REPLACEMENTS:
        text = pattern.sub(replacement, text)
    text = LIBRARY_NAMES.sub("NAME", text)
    text = re.sub(r"[^A-Za-z0-9.,;:()'\"!?%/ -]+", " ", text)
    text = re.sub(r"(?:NAME[\s.,/()-]*)+NAME", "NAME", text)
    text = re.sub(r"\s+", " ", text)
    return re.sub(r" ([.,;:)])", r"\1", text).strip(" -:;,*")


def source_files(package: Path) -> list[Path]:
    """Return the Python files of a package (or the file of a module) without tests, sorted by path."""
    if package.is_file():
        return [package] if package.suffix == ".py" else []
    found = []
    for folder, folders, names in os.walk(package):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(found, key=lambda path: path.as_posix())


def paragraphs(path: Path) -> Iterator[str]:
    """Yield the paragraphs of all docstrings in a file."""
    for docstring in docstrings(path.read_text(encoding="utf-8", errors="replace")):
        yield from prose(docstring)


def all_paragraphs() -> Iterator[str]:
    """Yield each distinct paragraph of the standard library and of all installed packages (about a minute)."""
    seen: set[str] = set()
    for root in dict.fromkeys([sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")]):
        for entry in sorted(Path(root).iterdir()):
            if entry.name in SKIPPED_FOLDERS:
                continue
            for path in source_files(entry):
                for text in paragraphs(path):
                    if text not in seen:
                        seen.add(text)
                        yield text


def digest(text: str) -> int:
    """Return a pseudo-random number of 64 bits that depends on the text only."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def split_of(file: str) -> str:
    """Return the split of a source file, sampled in proportion to the sizes of the splits."""
    position = digest("split " + file) / 2**64 * sum(ROWS_PER_LABEL.values())
    if position < ROWS_PER_LABEL["test"]:
        return "test"
    return "validation" if position < ROWS_PER_LABEL["test"] + ROWS_PER_LABEL["validation"] else "train"


def gather(label: str, package: Path) -> list[Row]:
    """Return candidate rows of one library: files are read in order of their digest until all splits have enough."""
    files = [(path.relative_to(package.parent).as_posix(), path) for path in source_files(package)]
    rows: list[Row] = []
    missing = {split: 1.6 * count for split, count in ROWS_PER_LABEL.items()}
    for name, path in sorted(files, key=lambda file: digest(file[0])):
        split = split_of(name)
        if missing[split] <= 0:
            continue
        texts = sorted(set(paragraphs(path)), key=digest)[:PARAGRAPHS_PER_FILE]
        rows += [Row(text, label, split) for text in texts]
        missing[split] -= len(texts)
    return rows


def shingles(texts: Sequence[str]) -> Any:
    """Return a sparse matrix of shape (texts, 2^20): the hashed set of word triples of each text."""
    from sklearn.feature_extraction.text import HashingVectorizer

    triples = HashingVectorizer(ngram_range=(3, 3), binary=True, norm=None, alternate_sign=False)
    return triples.transform(texts)


def near_duplicates(texts: Sequence[str], others: Sequence[str] | None = None) -> list[int]:
    """Return indices of near-duplicates of one of `others`, or (without `others`) of an earlier text that is kept.

    Two texts are near-duplicates if the Jaccard index of their sets of word triples is over NEAR_DUPLICATE.
    """
    left = shingles(texts)
    right = left if others is None else shingles(others)
    sizes, other_sizes = left.getnnz(axis=1), right.getnnz(axis=1)
    dropped: set[int] = set()
    for start in range(0, len(texts), 2000):  # in blocks, to keep 2,000 × 10,000 numbers in memory instead of 10,000²
        common = (left[start : start + 2000] @ right.T).tocoo()
        i, j, both = common.row + start, common.col, common.data
        similar = both > NEAR_DUPLICATE * (sizes[i] + other_sizes[j] - both)
        if others is not None:
            dropped.update(i[similar].tolist())
            continue
        for first, second in sorted(
            zip(j[similar].tolist(), i[similar].tolist(), strict=True), key=lambda p: (p[1], p[0])
        ):
            if first < second and first not in dropped:
                dropped.add(second)
    return sorted(dropped)


def choose(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Sample the rows of each label and split without near-duplicates, of which the test row is kept."""
    order = {"test": 0, "validation": 1, "train": 2}
    candidates = sorted(rows, key=lambda row: (order[row.split], digest(row.text), row.label))
    dropped = set(near_duplicates([row.text for row in candidates]))
    splits: dict[str, list[Row]] = {split: [] for split in ROWS_PER_LABEL}
    counts: Counter[tuple[str, str]] = Counter()
    for index, row in enumerate(candidates):
        if index not in dropped and counts[row.split, row.label] < ROWS_PER_LABEL[row.split]:
            counts[row.split, row.label] += 1
            splits[row.split].append(row)
    return splits


def tfidf_test_accuracy(splits: dict[str, list[Row]]) -> float:
    """Return the test accuracy of logistic regression on TF-IDF of words and word pairs, as a baseline."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True), LogisticRegression(C=10))
    train, test = splits["train"], splits["test"]
    model.fit([row.text for row in train], [row.label for row in train])
    return float(model.score([row.text for row in test], [row.label for row in test]))


def installed_packages() -> dict[str, Path]:
    """Return the source folder of each package by its label, without importing it."""
    packages = {}
    for label, package in LIBRARIES.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"The quickstart's data needs {label}, which is not installed: pip install {label}")
        packages[label] = Path(spec.origin).parent
    return packages


def recipe() -> dict[str, str]:
    """Return what the data depends on: the versions of the packages and the digest of this file."""
    versions = {label: importlib.metadata.version(label) for label in LIBRARIES}
    return versions | {"docstrings.py": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}


def write(path: Path, content: str) -> None:
    """Write a temporary file and rename it, so that readers see either the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(content, encoding="utf-8", newline="")
    temporary.replace(path)


def build(folder: Path | str = DATA) -> Summary:
    """Write train.csv, validation.csv, test.csv (columns text, label) and manifest.json, unless they are up to date.

    Raises SystemExit that names the package to install if one of the eight is missing.
    """
    folder = Path(folder)
    manifest = folder / "manifest.json"
    if manifest.exists():
        made = json.loads(manifest.read_text(encoding="utf-8"))
        if made["recipe"] == recipe() and made["fingerprint"] == fingerprint(folder):
            return Summary(folder, made["rows"], made["tfidf_test_accuracy"], made["fingerprint"], True)
    splits = choose(row for label, package in installed_packages().items() for row in gather(label, package))
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerows([("text", "label"), *((row.text, row.label) for row in rows)])
        write(folder / f"{split}.csv", table.getvalue())
    sizes = {split: len(rows) for split, rows in splits.items()}
    made = {
        "rows": sizes,
        "tfidf_test_accuracy": round(tfidf_test_accuracy(splits), 4),
        "fingerprint": fingerprint(folder),
        "recipe": recipe(),
    }
    write(manifest, json.dumps(made, indent=2) + "\n")
    return Summary(folder, sizes, made["tfidf_test_accuracy"], made["fingerprint"], False)


def fingerprint(folder: Path) -> str:
    """Return the SHA-256 of the three files; a missing file is read as empty."""
    total = hashlib.sha256()
    for split in ROWS_PER_LABEL:
        path = folder / f"{split}.csv"
        total.update(hashlib.sha256(path.read_bytes() if path.exists() else b"").digest())
    return total.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=DATA, help="where to write (default: %(default)s)")
    summary = build(parser.parse_args().folder)
    state = "up to date" if summary.was_up_to_date else "written"
    sizes = ", ".join(f"{split} {rows:,}" for split, rows in summary.rows.items())
    print(f"{summary.folder} is {state}: {sizes} rows, {len(LIBRARIES)} labels.")
    print(f"TF-IDF + logistic regression, test accuracy: {summary.tfidf_test_accuracy:.3f}")


if __name__ == "__main__":
    main()
