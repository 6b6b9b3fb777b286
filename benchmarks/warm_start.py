"""Measures the value of source studies, helpful and misleading ones: replays searches on recorded curves.

    python benchmarks/warm_start.py --seeds 5 --results warm_start.jsonl

A search with hpo's defaults, and with its first trials where they were recorded, has no source study or a finished
study of random configurations: on another dataset of the same family, which helps as far as the datasets are alike; the
same with its values shuffled, which is uninformative; the same with its values negated, which misleads as much as
possible; or one that helps and one that misleads. Regret is as in `search_quality.py`.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial
from recorded import DATA, Table, read_tables
from rich.console import Console
from rich.progress import track
from rich.table import Table as Lines
from search_quality import average
from simulated import FIRST_TRIALS, POINTS, Case, replay

from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import TrialRecord

# The signs of the source studies' values; 0: shuffled.
KINDS = {"none": (), "helpful": (1,), "unrelated": (0,), "misleading": (-1,), "helpful and misleading": (1, -1)}
MARKS = (1 / 8, 1 / 4, 1 / 2, 1)  # shares of the compute


def add_source(table: Table, sign: int, trials: int, seed: int, study: optuna.Study) -> str:
    """Create a finished study of `trials` random runs of `table` in the storage of `study`; return its name."""
    source = optuna.create_study(
        study_name=f"{study.study_name}-{sign}", storage=study._storage, direction=table.direction
    )
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(len(table.runs))[:trials]
    for number, origin in zip(numbers, numbers if sign else rng.permutation(numbers), strict=True):
        config, run = table.runs[number].params, table.runs[origin]
        params = {name: config[name] for name in table.space if name in config}
        values = [] if run.failed else [(sign or 1) * value for value in run.values]
        source.add_trial(
            create_trial(
                state=TrialState.FAIL if run.failed else TrialState.COMPLETE,
                value=None if run.failed else values[-1],
                params=params,
                distributions={name: table.space[name] for name in params},
                intermediate_values=dict(zip(run.steps, values, strict=False)),
                **TrialRecord(rungs=run.steps[-1]).attributes(),
            )
        )
    return source.study_name


def source_adder(others: Sequence[Table], kind: str, trials: int, seed: int) -> Callable[[optuna.Study], None]:
    """Return a function that gives a study its source studies, from the table that the seed selects."""

    def prepare(study: optuna.Study) -> None:
        names = [add_source(others[seed % len(others)], sign, trials, seed, study) for sign in KINDS[kind]]
        StudyRecord(source_studies=tuple(names)).save(study)

    return prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of tables")
    parser.add_argument("--family", nargs="*", default=["taskset", "fine_tuning"])
    parser.add_argument("--trials", type=int, default=40, help="of a source study")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--wholes", type=float, default=16, help="compute of a search, in full trainings")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines file of finished runs, to resume from")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lines = arguments.results.read_text(encoding="utf-8").splitlines() if arguments.results.exists() else []
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    known = {(row["kind"], *row["case"]) for row in rows}
    tables = [table for table in read_tables(arguments.data) if table.family in arguments.family]
    cases = [
        (kind, table, Case(table.family, table.name, method, arguments.workers, seed))
        for table in tables
        for method in [FIRST_TRIALS if table.first_trials else "hpo"]
        for seed in range(arguments.seeds)
        for kind in KINDS
    ]
    for kind, table, case in track([(k, t, c) for k, t, c in cases if (k, *c) not in known], "replaying"):
        others = [other for other in tables if other.family == table.family and other.name != table.name]
        found = replay(table, case, arguments.wholes, source_adder(others, kind, arguments.trials, case.seed))
        rows.append({"kind": kind, **found})
        with arguments.results.open("a", encoding="utf-8") as out:
            out.write(json.dumps(rows[-1]) + "\n")
    for family in arguments.family:
        shown = Lines("source studies", *(f"regret at {mark:g}" for mark in MARKS), title=family)
        for kind in KINDS:
            curves = average([row for row in rows if row["kind"] == kind and row["case"][0] == family])
            shown.add_row(kind, *(curves.interval(round(POINTS * mark) - 1) for mark in MARKS))
        Console(width=140).print(shown)


if __name__ == "__main__":
    main()
