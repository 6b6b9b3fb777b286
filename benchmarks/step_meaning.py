"""Compares definitions of a step for early comparison of trials: rank correlation of early and final values.

    python benchmarks/step_meaning.py        # reads the recorded curves in benchmarks/data/fine_tuning.parquet

Trials with different numbers of epochs and batch sizes can be compared after the same number of epochs (and examples),
the same share of their schedules, or the same number of optimizer updates. Each definition is evaluated where the mean
trial has done an eighth, a quarter and half of its training: the rank correlation with the final values, its 95%
bootstrap interval over trials, and the share of the best sixth that is in the worse half, where halving stops it.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from recorded import DATA, Run, Table, read_tables
from rich.console import Console
from rich.table import Table as Lines
from scipy.stats import spearmanr

SPENT = (0.125, 0.25, 0.5)
RESAMPLES = 200
Array = np.ndarray


def totals(table: Table, rows: int) -> dict[str, Array]:
    """Return each run's total by definition of a step; `rows` is the number of training rows."""
    epochs = np.array([float(run.params["epochs"]) for run in table.runs])
    updates = epochs * [math.ceil(rows / run.params["batch_size"]) for run in table.runs]
    return {"epochs, examples": epochs, "share of its schedule": np.ones(len(epochs)), "updates": updates}


def shares_at(total: Array, spent: float) -> Array:
    """Return each run's share of its schedule at the level where the mean share is `spent`."""
    low, high = 0.0, float(total.max())
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle / total, 1).mean() < spent else (low, middle)
    return np.minimum(low / total, 1)


def value_at(run: Run, share: float) -> float:
    """Return a run's value at a share of its schedule, interpolated linearly between reports."""
    return float(np.interp(share, np.arange(1, len(run.values) + 1) / len(run.values), run.values))


def compare(table: Table, total: Array, spent: float) -> str:
    """Return the rank correlation, its interval, and the share of the best runs that is lost."""
    done = [index for index, run in enumerate(table.runs) if not run.failed]
    shares = shares_at(total, spent)
    early = np.array([table.sign * value_at(table.runs[index], shares[index]) for index in done])
    final = table.sign * table.finals[done]
    rng = np.random.default_rng(0)
    resamples = [rng.integers(len(done), size=len(done)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile([spearmanr(early[rows], final[rows]).statistic for rows in resamples], (0.025, 0.975))
    best = np.argsort(final)[: max(1, len(done) // 6)]
    lost = np.mean(early[best] > np.median(early))
    return f"{spearmanr(early, final).statistic:.2f} [{low:.2f}, {high:.2f}]  {lost:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of tables")
    parser.add_argument("--rows", type=int, default=500, help="training rows of the recorded runs")
    arguments = parser.parse_args()
    for table in read_tables(arguments.data):
        if table.family != "fine_tuning":
            continue
        lines = Lines("a step means", *(f"{spent:g} spent" for spent in SPENT))
        lines.title = f"{table.name}, {len(table.runs)} runs: rank correlation, best sixth lost"
        for name, total in totals(table, arguments.rows).items():
            lines.add_row(name, *(compare(table, total, spent) for spent in SPENT))
        Console(width=140).print(lines)


if __name__ == "__main__":
    main()
