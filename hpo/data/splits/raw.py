"""The splits of a source as they are read, before a task selects columns."""

from collections.abc import Mapping
from dataclasses import dataclass

from datasets import Dataset


@dataclass(frozen=True)
class RawSplits:
    """The splits with their source columns; `origins` names the source of each, `notes` what was changed."""

    train: Dataset
    validation: Dataset | None
    test: Dataset | None
    origins: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def present(self) -> dict[str, Dataset]:
        """Return the splits that exist, by name."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: rows for split, rows in found.items() if rows is not None}
