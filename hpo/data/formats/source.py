"""A data file for the recognizers and readers of formats: its first bytes, its text, and the rows read from it."""

import codecs
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from datasets import Dataset

from hpo.errors import DataError

HEAD = 1 << 18  # bytes that recognizers read: the first 1,000 rows or so of any file


@dataclass(frozen=True)
class Content:
    """The rows of a file, by the split names that it contains, or under an empty name; `notes` are for the user."""

    splits: Mapping[str, Dataset]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceFile:
    """A file with its text encoding, and whether its first line names the columns (None: not known)."""

    path: Path
    encoding: str = "utf-8"
    header: bool | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def suffix(self) -> str:
        """Return the suffix in lower case."""
        return self.path.suffix.lower()

    @cached_property
    def head(self) -> bytes:
        """Return the first bytes."""
        with self.path.open("rb") as file:
            return file.read(HEAD)

    @cached_property
    def lines(self) -> list[str]:
        """Return the complete lines of the first bytes; empty for bytes that are not text of this encoding."""
        if not self._is_utf16 and b"\0" in self.head:
            return []
        text = self.head.decode(self._codec, "replace").removeprefix("\ufeff")
        lines = text.split("\n")
        complete = lines if len(self.head) < HEAD else lines[:-1] or lines
        return [line.removesuffix("\r") for line in complete]

    @property
    def text(self) -> str:
        """Return the decoded text. Raises `DataError`."""
        return decode(self.path, self.encoding)

    @contextmanager
    def open(self) -> Iterator[io.TextIOBase]:
        """Open the file as text, line ends as they are. Raises `DataError` as `decode` at an invalid byte."""
        find_codec(self.encoding)
        if not self.head.strip():
            raise DataError(f"{self.path}: the file is empty.")
        try:
            with self.path.open(encoding=self._codec, newline="") as file:
                yield file
        except UnicodeError:
            decode(self.path, self.encoding)
            raise

    @property
    def _codec(self) -> str:
        known = find_codec(self.encoding)
        return "utf-8-sig" if known == "utf-8" else known

    @property
    def _is_utf16(self) -> bool:
        return find_codec(self.encoding).startswith(("utf-16", "utf-32"))


@dataclass(frozen=True)
class Format:
    """A format: the suffixes its files usually have, how it is recognized by content, and how it is read."""

    name: str
    suffixes: frozenset[str]
    recognizes: Callable[[SourceFile], bool]
    read: Callable[[SourceFile], Content]


def find_codec(encoding: str) -> str:
    """Return the name of a text encoding. Raises `DataError`."""
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        raise DataError(
            f"data.encoding: '{encoding}' is not a text encoding. Common ones: utf-8, utf-16, cp1252, latin-1."
        ) from None


def decode(path: Path, encoding: str) -> str:
    """Return the text of a file, without a byte order mark.

    Raises `DataError` with the position of the first invalid byte, and an encoding that can decode the file.
    """
    known = find_codec(encoding)
    raw = path.read_bytes()
    if not raw.strip():
        raise DataError(f"{path}: the file is empty.")
    try:
        text = raw.decode("utf-8-sig" if known == "utf-8" else known)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not {encoding}: byte {error.start + 1} of the file is 0x{raw[error.start]:02x}. "
            f"It looks like {likely_encoding(raw)}: set `data.encoding: {likely_encoding(raw)}`, or save the file "
            "as utf-8."
        ) from None
    except UnicodeError as error:  # utf-16 without its byte order mark
        raise DataError(f"{path}: not {encoding}: {error}. Set `data.encoding: {likely_encoding(raw)}`.") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(
            f"{path}, line {line}: a NUL character: this is not {encoding} text. Set `data.encoding: utf-16` if it "
            "is that; otherwise remove the character."
        )
    return text


def likely_encoding(raw: bytes) -> str:
    """Return an encoding that can decode `raw`, which is not utf-8."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or raw[:1000].count(0) > 100:
        return "utf-16"
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"
