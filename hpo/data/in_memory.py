"""Tables that a person holds in Python: kept as files, which every worker reads and the study knows again."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hpo.core.paths import home
from hpo.data.sources import SPLITS
from hpo.errors import ConfigError


def save_tables(data: Any) -> Any:
    """`data` of a study, where it is a table a file of it; anything else as it is.

    A table is a `datasets.Dataset` or a `pandas.DataFrame` (its index is left out); a `DatasetDict` or a mapping of
    train, validation and test to tables gives the splits. The files lie in HPO_HOME, named by their content: the same
    table is the same data. Raises `ConfigError` for what cannot be written.
    """
    if isinstance(data, Mapping) and data and all(map(is_table, data.values())):
        unknown = sorted(set(data) - set(SPLITS))
        if unknown or "train" not in data:
            wrong = f"'{unknown[0]}' is no split" if unknown else "there is no 'train'"
            raise ConfigError(f"data: {wrong}: give tables as {', '.join(SPLITS)}.")
        return str(_keep(data))
    if isinstance(data, Mapping) and "path" in data:
        return {**data, "path": save_tables(data["path"])}
    return str(_keep({"train": data})) if is_table(data) else data


def is_table(value: Any) -> bool:
    """Return whether `value` is a `datasets.Dataset` or a `pandas.DataFrame`."""
    return hasattr(value, "to_parquet")


def _keep(tables: Mapping[str, Any]) -> Path:
    """Write a file for each split into a folder that is named by what is in them, last."""
    place = home() / "data"
    place.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with TemporaryDirectory(dir=place) as scratch:
        made = Path(scratch) / "table"
        made.mkdir()
        for split, table in sorted(tables.items()):
            file = made / f"{split}.parquet"
            try:
                # A DataFrame's index numbers its rows; it is nothing to learn from.
                table.to_parquet(file, index=False) if hasattr(table, "iloc") else table.to_parquet(str(file))
            except (ValueError, TypeError, OSError, ImportError) as error:
                raise ConfigError(f"data: the table cannot be written as parquet: {error}") from error
            digest.update(split.encode() + file.read_bytes())
        kept = place / f"table-{digest.hexdigest()[:12]}"
        if not kept.is_dir():
            made.rename(kept)
    return kept
