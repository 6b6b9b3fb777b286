"""The trials of a study as a flat CSV file for spreadsheets."""

import csv
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import optuna

from hpo.storage.records.trial import TrialRecord, latest_value

# Characters that start a formula in a spreadsheet, or that it skips before one.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
FIRST_COLUMNS = ("number", "state", "value", "seconds")
LAST_COLUMNS = ("seed", "worker", "attempt", "failure")


def write_trials_csv(study: optuna.Study, path: Path) -> None:
    """Write one row per trial: number, state, value, resolved parameters, metrics, seconds, failure.

    A text that a spreadsheet would evaluate as a formula is prefixed with an apostrophe. The file is replaced
    atomically.
    """
    rows = [_row(trial) for trial in study.get_trials(deepcopy=False)]
    columns = list(dict.fromkeys((*FIRST_COLUMNS, *_sorted_keys(rows), *LAST_COLUMNS)))
    columns.sort(key=LAST_COLUMNS.__contains__)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(escape_formula(column) for column in columns)
        writer.writerows([escape_formula(row.get(column)) for column in columns] for row in rows)
    part.replace(path)


def escape_formula(cell: Any) -> Any:
    """Return a cell that no spreadsheet evaluates; numbers are returned unchanged.

    >>> escape_formula("=1+1"), escape_formula(-1.5), escape_formula(" -x")
    ("'=1+1", -1.5, "' -x")
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, int | float):
        return cell
    text = str(cell).replace("\0", "")
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA_STARTS) else text


def _row(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    record = TrialRecord.of(trial)
    row: dict[str, Any] = {"number": trial.number, "state": trial.state.name.lower()}
    row["value"] = latest_value(trial)
    row["seconds"] = trial.duration.total_seconds() if trial.duration else None
    row |= {f"params.{name}": value for name, value in record.params.items()}
    row |= {f"metrics.{name}": value for name, value in record.metrics.items()}
    row |= {f"spread.{name}": value for name, value in record.spread.items()}
    row |= {f"seconds.{phase}": value for phase, value in record.seconds.items()}
    single = ("frozen_layers", "train_loss", "gap", "epochs_trained", "peak_memory_mb", *LAST_COLUMNS)
    row |= {name: getattr(record, name) for name in single if name in record.model_fields_set}
    return row


def _sorted_keys(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return the keys of all rows in the order of first appearance, grouped by prefix (params., metrics., …)."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    families = ("params", "metrics", "spread", "seconds")
    return sorted(keys, key=lambda key: families.index(key.split(".")[0]) if "." in key else len(families))
