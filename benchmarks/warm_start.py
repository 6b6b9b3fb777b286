"""What is an earlier study worth to a new one, a helpful and a misleading one? Replays both on recorded curves.

    python benchmarks/warm_start.py --seeds 5 --results warm_start.jsonl

A search with hpo's defaults, with its first trials where they were recorded, begins with nothing more, or with a
finished study of random configurations as its evidence: of another dataset of the same family, which helps as far as
the datasets are alike; the same with its values dealt anew among its trials, which tells nothing; with its values
upside down, which misleads as much as anything can; or one that helps and one that misleads. Regret is as in
`search_quality.py`.
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
from simulated import POINTS, WHOLE, Case, replay

from hpo.search.surrogate.transfer import SOURCE_STUDIES
from hpo.storage.transactions import RUNGS

# Of the earlier studies' values the signs; 0: dealt anew.
KINDS = {"none": (), "helpful": (1,), "unrelated": (0,), "misleading": (-1,), "helpful and misleading": (1, -1)}
MARKS = (1 / 8, 1 / 4, 1 / 2, 1)  # of the compute


def earlier(table: Table, sign: int, trials: int, seed: int, study: optuna.Study) -> str:
    """Put a finished study of `trials` random runs of `table` beside `study`; its name."""
    given = optuna.create_study(
        study_name=f"{study.study_name}-{sign}", storage=study._storage, direction=table.direction
    )
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(len(table.runs))[:trials]
    for number, dealt in zip(numbers, numbers if sign else rng.permutation(numbers), strict=True):
        config, run = table.runs[number].params, table.runs[dealt]
        params = {name: config[name] for name in table.space if name in config}
        values = [] if run.failed else [(sign or 1) * value for value in run.values]
        given.add_trial(
            create_trial(
                state=TrialState.FAIL if run.failed else TrialState.COMPLETE,
                value=None if run.failed else values[-1],
                params=params,
                distributions={name: table.space[name] for name in params},
                intermediate_values=dict(zip(run.steps, values, strict=False)),
                user_attrs={RUNGS: run.steps[-1]},
            )
        )
    return given.study_name


def prepared(others: Sequence[Table], kind: str, trials: int, seed: int) -> Callable[[optuna.Study], None]:
    """What gives a study its evidence: of one of the other tables, in turn."""

    def prepare(study: optuna.Study) -> None:
        names = [earlier(others[seed % len(others)], sign, trials, seed, study) for sign in KINDS[kind]]
        study.set_user_attr(SOURCE_STUDIES, names)

    return prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of tables")
    parser.add_argument("--family", nargs="*", default=["taskset", "fine_tuning"])
    parser.add_argument("--trials", type=int, default=40, help="of an earlier study")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--wholes", type=float, default=16, help="compute of a search, in whole trainings")
    parser.add_argument("--results", type=Path, required=True, help="file that keeps each run, and is gone on from")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lines = arguments.results.read_text(encoding="utf-8").splitlines() if arguments.results.exists() else []
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    known = {(row["kind"], *row["case"]) for row in rows}
    tables = [table for table in read_tables(arguments.data) if table.family in arguments.family]
    cases = [
        (kind, table, Case(table.family, table.name, WHOLE if table.first_trials else "hpo", arguments.workers, seed))
        for table in tables
        for seed in range(arguments.seeds)
        for kind in KINDS
    ]
    for kind, table, case in track([(k, t, c) for k, t, c in cases if (k, *c) not in known], "replaying"):
        others = [other for other in tables if other.family == table.family and other.name != table.name]
        found = replay(table, case, arguments.wholes, prepared(others, kind, arguments.trials, case.seed))
        rows.append({"kind": kind, **found})
        with arguments.results.open("a", encoding="utf-8") as out:
            out.write(json.dumps(rows[-1]) + "\n")
    for family in arguments.family:
        shown = Lines("earlier study", *(f"regret at {mark:g}" for mark in MARKS), title=family)
        for kind in KINDS:
            curves = average([row for row in rows if row["kind"] == kind and row["case"][0] == family])
            shown.add_row(kind, *(curves.interval(round(POINTS * mark) - 1) for mark in MARKS))
        Console(width=140).print(shown)


if __name__ == "__main__":
    main()
