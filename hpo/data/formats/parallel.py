"""Parallel texts: two files of equally many lines for each split, one per language (`train.en`, `train.de`)."""

import re
from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from hpo.data.formats.source import decode
from hpo.data.formats.split_names import SPLITS, split_of
from hpo.errors import DataError

LANGUAGE = re.compile(r"[a-z]{2,3}([-_][a-zA-Z]{2,4})?|src|tgt|source|target", re.IGNORECASE)
NOT_LANGUAGES = frozenset({"csv", "tsv", "txt", "xml", "yml", "md", "py", "sh", "log", "tgz", "gz", "zip", "bpe"})
FIRST = ("src", "source", "en", "eng")  # read; the other is written


def parallel_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Return split → the file that is read and the one that is written; empty where `folder` has no such pairs."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        stem = path.name.removesuffix(".txt")
        language = stem.rpartition(".")[2]
        if path.is_file() and "." in stem and LANGUAGE.fullmatch(language) and language.lower() not in NOT_LANGUAGES:
            split = split_of(stem.rpartition(".")[0])
            if split is not None:
                found.setdefault(split, []).append(path)
    pairs = {split: files for split, files in found.items() if len(files) == 2}
    languages = {tuple(sorted(map(_language, files))) for files in pairs.values()}
    if "train" not in pairs or len(languages) != 1 or len(next(iter(languages))) != 2:
        return {}
    order = sorted(languages.pop(), key=lambda one: (one.lower() not in FIRST, one))
    by_language = {split: {_language(path): path for path in files} for split, files in pairs.items()}
    return {split: (by_language[split][order[0]], by_language[split][order[1]]) for split in SPLITS if split in pairs}


def _language(path: Path) -> str:
    return path.name.removesuffix(".txt").rpartition(".")[2]


def read_parallel(files: dict[str, tuple[Path, Path]], encoding: str) -> tuple[dict[str, Dataset], list[str]]:
    """Return the lines of each split in a column per language, and notes. Raises `DataError` for unequal lengths."""
    read = {}
    for split, pair in files.items():
        lines = [decode(path, encoding).removesuffix("\n").split("\n") for path in pair]
        if len(lines[0]) != len(lines[1]):
            raise DataError(
                f"{pair[0]}: {len(lines[0])} lines, but {pair[1].name} has {len(lines[1])}: line by line, each must be "
                "the translation of the other."
            )
        read[split] = Dataset(
            pa.table(
                {
                    _language(path): pa.array([line.removesuffix("\r") for line in column], pa.string())
                    for path, column in zip(pair, lines, strict=True)
                }
            )
        )
    first, second = (_language(path) for path in files["train"])
    return read, [
        f"parallel files: '{first}' is read and '{second}' is written; `data.text: {second}` and `data.label: {first}` "
        "exchange them"
    ]
