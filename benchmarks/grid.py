"""Compares hpo's search with the grid of the BERT papers at the same wall time, both with hpo's own engine.

    python benchmarks/grid.py --data ../shared/datasets/{banking77,clinc150,tweet_emotion} --into grid.jsonl
    python benchmarks/grid.py --data … --model FOLDER --into grid.jsonl      # a BERT-like model, with the papers' rates
    python benchmarks/grid.py --data … --into quick.jsonl --quick             # three minutes

The grid (Devlin et al., 2019; Liu & Wang, 2021): batch 16, 32 × learning rate 2e-5, 3e-5, 5e-5 × 2, 3, 4 epochs for
each model, all else at its default; each configuration is trained to its end, and the best on validation wins. It is
run as a study whose first trials are the grid. Then hpo gets the same time, its confirmation and final model included
(the grid's one confirmation run does not count): the default sampler, pruner and confirmation in the search space
`text-encoders`. Both end with the winner trained on train and validation, and evaluated on test once.

The bundled models need larger learning rates: the papers' times 40, of which the largest, 2e-3, is the best one
according to their README. hpo's search space is then that of the quickstart, 1e-4 to 5e-3, and its first trials are
those for a BERT of the papers' size, also with rates times 40 (except for the head alone). Each search is an `hpo run`
in a process with a home and a cache of its own, and is appended to the file when it ends: the same command resumes. If
other work shares the machine, compare the CPU seconds too.
"""

import argparse
import itertools
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy import stats
from sklearn.model_selection import train_test_split

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = ROOT / "examples" / "models"
RATES, BATCHES, EPOCHS = (2e-5, 3e-5, 5e-5), (16, 32), (2, 3, 4)
BUNDLED_FACTOR = 40
BUNDLED_SPACE = {"low": 1e-4, "high": 5e-3, "log": True}
BERT_BASE = {"layers": 12, "model_type": "bert", "params": 110_000_000}
SIDES = ("grid", "hpo")
MAX_ROWS = {"validation": 300, "test": 2000}
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One search of one side: the key of a line of the file."""

    data: str
    seed: int
    side: str
    models: tuple[str, ...]
    rows: int


def write_data(source: Path, rows: int, seed: int, into: Path) -> Path:
    """Write at most `rows` training rows, sampled by the seed, and the validation and test rows of a dataset."""
    for split, limit in {"train": rows, **MAX_ROWS}.items():
        table = pd.read_csv(source / f"{split}.csv")
        label = "label_name" if "label_name" in table else "label"
        table = table[["text", label]].rename(columns={label: "label"})
        if len(table) > limit:
            by = table["label"] if split == "train" else None  # in the classes' proportions, and each at least once
            table, _ = train_test_split(table, train_size=limit, stratify=by, random_state=seed)
        table.to_csv(into / f"{split}.csv", index=False)
    return into


def study(case: Case, models: list[Path], data: Path, seconds: float | None) -> Row:
    """Return the study of one side. `seconds` is the budget of hpo."""
    bundled = [model.parent == BUNDLED for model in models]
    assert all(bundled) or not any(bundled), (
        "bundled and other models need separate runs, as all share the learning rates"
    )
    shared = {"data": str(data), "models": [str(model) for model in models], "seed": case.seed, "devices": "cpu"}
    if case.side == "grid":
        rates = [round(rate * (BUNDLED_FACTOR if bundled[0] else 1), 12) for rate in RATES]
        space = {"learning_rate": rates, "batch_size": list(BATCHES), "epochs": list(EPOCHS)}
        grid = [dict(zip(space, point, strict=True)) for point in itertools.product(*space.values())]
        budget = {"max_trials": len(grid) * len(models)}
        confirm = {"top": 1, "seeds": 1}
        more = {"search_space": space, "first_trials": grid, "pruner": "none", "budget": budget, "confirm": confirm}
        return {"name": "grid", **shared, **more}
    assert seconds is not None, "the grid runs first"
    more = {"search_space": "text-encoders", "budget": {"max_trials": 100_000, "max_hours": seconds / 3600}}
    if bundled[0]:
        from hpo.config.first_trials import ModelTraits, model_filter
        from hpo.config.space_files import ready_made_spaces
        from hpo.config.yaml import read_yaml

        ready = read_yaml(ready_made_spaces()["text-encoders"])
        space = {name: value for name, value in ready.items() if name != "first_trials"}
        portfolio = [
            {**entry, "learning_rate": entry["learning_rate"] * BUNDLED_FACTOR, "when": {}}
            if "when" in entry
            else entry
            for entry in ready["first_trials"]
            if model_filter(entry).matches(ModelTraits(**BERT_BASE))
        ]
        more |= {"search_space": {**space, "learning_rate": BUNDLED_SPACE}, "portfolio": portfolio}
    return {"name": "hpo", **shared, **more}


def search(case: Case, models: list[Path], source: Path, seconds: float | None) -> Row:
    """Run one side in a process of its own; return its scores and its time."""
    from hpo.config.yaml import to_yaml

    with tempfile.TemporaryDirectory(prefix="hpo-grid-") as folder:
        home = Path(folder)
        (home / "data").mkdir()
        data = write_data(source, case.rows, case.seed, home / "data")
        file = home / "study.yaml"
        file.write_text(to_yaml(study(case, models, data, seconds)))
        environment = {**os.environ, "HPO_HOME": folder, "HF_HUB_OFFLINE": "1", "HPO_STORAGE": ""}
        del environment["HPO_STORAGE"]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "hpo.cli", "run", str(file)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(f"{case}: hpo run ended with {done.returncode}\n{done.stdout}{done.stderr}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {**vars(case), "wall_seconds": wall, "cpu_seconds": cpu, **outcome(home, case.side)}


def outcome(home: Path, name: str) -> Row:
    """Return the scores and trials of the finished study, and the seconds that the other side gets."""
    import optuna

    import hpo
    from hpo.storage.budget import seconds_run
    from hpo.storage.optuna_internals import optuna_storage

    url = f"sqlite:///{home / 'hpo.db'}"
    result = hpo.load(name, storage=url)
    record, trials = result.record, result.study.get_trials(deepcopy=False)
    children = optuna.get_all_study_names(optuna_storage(result.study))
    confirm = [each for each in children if each.startswith(f"{name}/confirm-") and "/final-" not in each]
    runs = [run for each in confirm for run in optuna.load_study(study_name=each, storage=url).trials]
    confirming = sum(run.duration.total_seconds() for run in runs if run.duration)
    metric = record.metric
    states = [trial.state.name for trial in trials]
    return {
        "test": record.test.metrics[metric],
        "interval": record.test.interval,
        "validation": record.winner.search_value,
        "confirmed": record.winner.mean,
        "params": {key: value for key, value in record.winner.params.items() if value is not None},
        "trials": {state: states.count(state) for state in sorted(set(states))},
        "study_seconds": seconds_run(result.study),
        "confirming_seconds": confirming,
    }


class Runs:
    """The file of finished searches: one JSON line each."""

    def __init__(self, file: Path) -> None:
        self._file = file
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        self.rows: list[Row] = [json.loads(line) for line in lines]

    def get(self, case: Case) -> Row | None:
        wanted = {**vars(case), "models": list(case.models)}
        return next((row for row in self.rows if all(row[key] == value for key, value in wanted.items())), None)

    def add(self, row: Row) -> None:
        row = json.loads(json.dumps(row))
        with self._file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        self.rows.append(row)


def pairs(runs: Runs, cases: list[Case]) -> Iterator[tuple[Row, Row]]:
    """Yield the searches of grid and hpo on the same data and seed, if both are finished."""
    for case in cases:
        if case.side == "grid":
            both = [runs.get(Case(**{**vars(case), "side": side})) for side in SIDES]
            if both[0] is not None and both[1] is not None:
                yield both[0], both[1]


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and half of its 95% interval by Student's t over the seeds, infinite for one seed."""
    if len(values) < 2:
        return values[0], math.inf
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), float(half)


def show(found: list[tuple[Row, Row]], console: Console) -> None:
    """Print a table by dataset, and the difference over all pairs."""
    table = Table(title="Test scores at the same wall time: mean over seeds", title_justify="left")
    for name in ("data", "seeds", "grid", "hpo", "hpo − grid, 95%", "wall s", "CPU s", "trials: grid", "hpo (pruned)"):
        table.add_column(name, justify="left" if name == "data" else "right")
    names = list(dict.fromkeys(grid["data"] for grid, _ in found))
    not_worse, better = 0, 0
    for name in names:
        of = [pair for pair in found if pair[0]["data"] == name]
        mean, half = interval([hpo["test"] - grid["test"] for grid, hpo in of])
        not_worse, better = not_worse + (mean + half >= 0), better + (mean > 0)
        means = [[statistics.fmean(pair[side][key] for pair in of) for side in (0, 1)] for key in KEYS]
        wall, cpu = (f"{grid:.0f} / {hpo:.0f}" for grid, hpo in means[1:])
        trials = [statistics.fmean(sum(pair[side]["trials"].values()) for pair in of) for side in (0, 1)]
        pruned = statistics.fmean(pair[1]["trials"].get("PRUNED", 0) for pair in of)
        noise = f" ± {half:.3f}" if math.isfinite(half) else ""
        scores = [f"{value:.3f}" for value in means[0]]
        numbers = [f"{trials[0]:.0f}", f"{trials[1]:.0f} ({pruned:.0f})"]
        table.add_row(name, str(len(of)), *scores, f"{mean:+.3f}{noise}", wall, cpu, *numbers)
    console.print(table)
    differences = np.array([hpo["test"] - grid["test"] for grid, hpo in found])
    resampled = np.random.default_rng(0).choice(differences, (10_000, len(differences))).mean(axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    console.print(f"hpo − grid over all {len(differences)} pairs: {differences.mean():+.3f} [{low:+.3f}, {high:+.3f}].")
    console.print(f"Not significantly below the grid on {not_worse} of {len(names)} datasets, above it on {better}.")


KEYS = ("test", "wall_seconds", "cpu_seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders with train, validation, test.csv")
    parser.add_argument("--model", type=Path, nargs="+", default=[BUNDLED / "bert-3x128", BUNDLED / "distilbert-2x160"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1000, help="maximum number of training rows")
    parser.add_argument("--into", type=Path, required=True, help="JSON lines file of finished searches, to resume from")
    parser.add_argument("--quick", action="store_true", help="one model, one seed, 200 rows of the first dataset")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.model, arguments.data = arguments.model[:1], arguments.data[:1]
        arguments.seeds, arguments.rows = 1, 200
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    models = [model.resolve() for model in arguments.model]
    names = tuple(model.name for model in models)
    seeds = range(arguments.seeds)
    cases = [
        Case(data.name, seed, side, names, arguments.rows)
        for seed in seeds
        for data in arguments.data
        for side in SIDES
    ]
    folders = {data.name: data.absolute() for data in arguments.data}
    runs = Runs(arguments.into)
    for number, case in enumerate(cases, 1):
        row = runs.get(case)
        if row is None:
            grid = runs.get(Case(**{**vars(case), "side": "grid"}))
            seconds = None if grid is None else grid["study_seconds"] - grid["confirming_seconds"]
            row = search(case, models, folders[case.data], seconds)
            runs.add(row)
        scores = f"{row['test']:.3f} on test, {sum(row['trials'].values())} trials"
        spent = f"{row['wall_seconds']:.0f} s, {row['cpu_seconds']:.0f} CPU s"
        console.print(
            f"{number}/{len(cases)} {case.data}, seed {case.seed}, {case.side}: {scores}, {spent}", soft_wrap=True
        )
    show(list(pairs(runs, cases)), console)


if __name__ == "__main__":
    main()
