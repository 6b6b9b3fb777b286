"""Tables in memory, saved as parquet files that every worker reads and a resumed study recognizes."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hpo.core.paths import home
from hpo.data.formats.split_names import SPLITS
from hpo.errors import ConfigError


def save_tables(data: Any) -> Any:
    """Save the tables in `data`, a study's setting, and return the setting with paths; return anything else unchanged.

    A table is a `datasets.Dataset` or a `pandas.DataFrame`, whose index is ignored; a `DatasetDict` or a mapping of
    train, validation and test to tables gives the splits. The files are in HPO_HOME, named by a digest of their
    content, so that equal tables are the same data. Raises `ConfigError` for a table that parquet cannot store.
    """
    if isinstance(data, Mapping) and data and all(map(is_table, data.values())):
        unknown = sorted(set(data) - set(SPLITS))
        if unknown or "train" not in data:
            wrong = f"'{unknown[0]}' is not a split" if unknown else "'train' is missing"
            raise ConfigError(f"data: {wrong}: name the tables {', '.join(SPLITS)}.")
        return str(_save(data))
    if isinstance(data, Mapping) and "path" in data:
        return {**data, "path": save_tables(data["path"])}
    return str(_save({"train": data})) if is_table(data) else data


def is_table(value: Any) -> bool:
    """Return whether `value` is a `datasets.Dataset` or a `pandas.DataFrame`."""
    return hasattr(value, "to_parquet")


def _save(tables: Mapping[str, Any]) -> Path:
    """Write a file for each split into a temporary folder, and rename it to the digest of the files."""
    root = home() / "data"
    root.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with TemporaryDirectory(dir=root) as scratch:
        folder = Path(scratch) / "table"
        folder.mkdir()
        for split, table in sorted(tables.items()):
            file = folder / f"{split}.parquet"
            try:
                # The index of a DataFrame is not a feature.
                table.to_parquet(file, index=False) if hasattr(table, "iloc") else table.to_parquet(str(file))
            except (ValueError, TypeError, OSError, ImportError) as error:
                raise ConfigError(f"data: the table cannot be written as parquet: {error}") from error
            digest.update(split.encode() + file.read_bytes())
        saved = root / f"table-{digest.hexdigest()[:12]}"
        if not saved.is_dir():
            folder.rename(saved)
    return saved
