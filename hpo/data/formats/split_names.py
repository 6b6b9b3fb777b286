"""Names of splits, as they stand in file names, folders and keys."""

import re

SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development", "testa", "eval", "evaluation"),
    "test": ("test", "testing", "tst", "testb"),
}


def split_of(name: str, exact: bool = False) -> str | None:
    """Return the split that a name is of, or contains between other words; None where it is none or several."""
    words = [name.lower()] if exact else re.findall(r"[a-z]+", re.sub(r"([a-z])(?=[A-Z])", r"\1 ", name).lower())
    found = {split for split, names in SPLITS.items() if any(word in names for word in words)}
    return found.pop() if len(found) == 1 else None
