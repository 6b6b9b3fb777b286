"""Recorded learning curves as searches to replay: a table holds configurations and how the training of each went.

    python benchmarks/recorded.py --source ../shared/learning_curves --into benchmarks/data    # TaskSet, scaling law

`benchmarks/data/README.md` says where each family of tables comes from.
"""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from sklearn.ensemble import ExtraTreesRegressor

from hpo.core.direction import Direction, loss_sign

DATA = Path(__file__).parent / "data"
BEGINNINGS = DATA / "beginnings.json"  # written by `record_curves.py`
Params = dict[str, Any]

EXACT = 1e3  # a squared distance that no runs with the same choices have
TASKSET_RUNGS = range(2, 51, 2)  # of the 51 recorded points: 25 rungs


@dataclass(frozen=True)
class Run:
    """One recorded training: its values at the rungs, the seconds until each, and whether it then failed.

    `steps` are the rungs' numbers, in proportion to the training done by then.
    """

    params: Params
    steps: tuple[int, ...]
    values: tuple[float, ...]
    seconds: tuple[float, ...]
    failed: bool


@dataclass
class Table:
    """The recorded runs of one dataset, and the space they were drawn from."""

    family: str
    name: str
    direction: Direction
    space: dict[str, BaseDistribution]
    runs: list[Run]
    order: tuple[str, ...] = ()  # the models, as the product ranks them on the dataset; empty: unknown
    first_trials: tuple[Run, ...] = ()  # the recorded runs of what it tries first: not part of `runs`
    _points: np.ndarray = field(init=False)
    _weights: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.finals = np.array([math.nan if run.failed else run.values[-1] for run in self.runs])
        self._points = np.array([self._place(run.params) for run in self.runs])
        self._weights = self._matter()

    @property
    def sign(self) -> float:
        """The factor that turns values into losses, of which less is better."""
        return loss_sign(self.direction)

    @property
    def conditional(self) -> bool:
        """Whether any parameter has a part only with some value of another."""
        return any(name in CONDITIONS for name in self.space)

    @property
    def whole(self) -> float:
        """Mean seconds of a run that does not fail: the unit in which compute is told."""
        return float(np.mean([run.seconds[-1] for run in self.runs if not run.failed]))

    def regret(self, value: float) -> float:
        """0 at the best recorded final value, 1 at the median one or worse."""
        losses = self.sign * self.finals[np.isfinite(self.finals)]
        best, middle = losses.min(), np.median(losses)
        return float(np.clip((self.sign * value - best) / (middle - best), 0, 1))

    def run_of(self, trial: optuna.Trial, taken: set[int]) -> Run:
        """Sample a configuration; the recorded run nearest to it, by the parameters that matter for the result.

        The model must be the same. No run of it is had twice (`taken` keeps them): a small change is not without
        effect. A first trial has its own.
        """
        for name, distribution in self.space.items():
            parent, needed = CONDITIONS.get(name, (name, None))
            if needed is None or trial.params[parent] == needed:
                trial._suggest(name, distribution)
        for run in self.first_trials:
            if run.params == trial.params:
                return run
        away = ((self._points - self._place(trial.params)) ** 2) @ self._weights
        again = [number for number in taken if away[number] < EXACT]
        if len(again) < np.count_nonzero(away < EXACT):
            away[again] = np.inf
        nearest = int(np.argmin(away))
        taken.add(nearest)
        return self.runs[nearest]

    def _place(self, params: Params) -> list[float]:
        """The configuration in unit coordinates, a choice as one coordinate for each of its values."""
        place: list[float] = []
        for name, kind in self.space.items():
            if isinstance(kind, CategoricalDistribution):
                place += [float(params.get(name) == choice) for choice in kind.choices]
            elif isinstance(kind, FloatDistribution | IntDistribution):
                given = params.get(name, kind.low)
                low, high, value = ((math.log if kind.log else float)(x) for x in (kind.low, kind.high, given))
                place.append((value - low) / (high - low))
        return place

    def _matter(self) -> np.ndarray:
        """How much each coordinate counts for nearness: its share in explaining the ranks of the final values."""
        worst = np.nanmax(self.sign * self.finals)
        ranks = np.argsort(np.argsort(np.nan_to_num(self.sign * self.finals, nan=worst + 1)))
        trees = ExtraTreesRegressor(100, min_samples_leaf=3, random_state=0).fit(self._points, ranks)
        weights: np.ndarray = trees.feature_importances_ + 1e-3
        place = 0
        for name, kind in self.space.items():
            width = len(kind.choices) if isinstance(kind, CategoricalDistribution) else 1
            if name in SAME:
                weights[place : place + width] = EXACT**2
            place += width
        return weights


def _log(low: float, high: float) -> FloatDistribution:
    return FloatDistribution(low, high, log=True)


# Metz et al., "Using a thousand optimization tasks to learn hyperparameter search strategies" (2020), appendix: the
# betas are drawn as their distance from 1.
TASKSET = {
    "learning_rate": _log(1e-8, 10),
    "1-beta1": _log(1e-4, 1),
    "1-beta2": _log(1e-6, 1),
    "epsilon": _log(1e-10, 1e3),
    "l1": _log(1e-8, 10),
    "l2": _log(1e-8, 10),
    "linear_decay": _log(1e-7, 1e-4),
    "exponential_decay": _log(1e-6, 1e-3),
}
# The quickstart's space, and adapters.
FINE_TUNING: dict[str, BaseDistribution] = {
    "learning_rate": _log(1e-4, 5e-3),
    "batch_size": CategoricalDistribution([16, 32, 64]),
    "epochs": IntDistribution(2, 6),
    "frozen_share": FloatDistribution(0, 1),
    "weight_decay": FloatDistribution(0, 0.1),
    "warmup_ratio": FloatDistribution(0, 0.2),
    "dropout": FloatDistribution(0, 0.2),
    "peft": CategoricalDistribution(["none", "lora"]),
    "lora_r": IntDistribution(4, 32, log=True),
    "lora_targets": CategoricalDistribution(["all-linear", "attention"]),
}
CONDITIONS = {"lora_r": ("peft", "lora"), "lora_targets": ("peft", "lora")}
# What a recorded run must have in common with a configuration that is asked for: another model is another curve. With
# the batch size, epochs and adapters as well there would be one or two runs of each kind.
SAME = {"model"}
DIRECTIONS: dict[str, Direction] = {"taskset": "minimize", "scaling_law": "minimize", "fine_tuning": "maximize"}


def read_tables(folder: Path = DATA) -> list[Table]:
    """All tables of a folder."""
    tables = []
    known = json.loads(BEGINNINGS.read_text(encoding="utf-8"))
    for file in sorted(folder.glob("*.parquet")):
        for name, rows in pandas.read_parquet(file).groupby("dataset"):
            runs = [
                Run(json.loads(row.params), tuple(row.steps), tuple(row.values_), tuple(row.seconds), bool(row.failed))
                for row in rows.rename(columns={"values": "values_"}).itertuples()
            ]
            table = Table(file.stem, str(name), DIRECTIONS[file.stem], _space(file.stem, runs), runs)
            if name in known:
                table.order = tuple(known[name]["order"])
                table.first_trials = tuple(Run(**run) for run in known[name]["first_trials"])
            tables.append(table)
    return tables


def _space(family: str, runs: list[Run]) -> dict[str, BaseDistribution]:
    if family == "taskset":
        return dict(TASKSET)
    models = CategoricalDistribution(sorted({run.params["model"] for run in runs}))
    return {"model": models, **(FINE_TUNING if family == "fine_tuning" else {})}


def _taskset(source: Path) -> list[dict[str, Any]]:
    rows = []
    for file in sorted((source / "taskset").glob("*.json")):
        for recorded in json.loads(file.read_text(encoding="utf-8")):
            given: Mapping[str, float] = recorded["hp"]
            params = {k: v for k, v in given.items() if not k.startswith("beta")}
            params |= {f"1-{k}": 1 - v for k, v in given.items() if k.startswith("beta")}
            params = {name: float(f"{min(max(params[name], d.low), d.high):.6g}") for name, d in TASKSET.items()}
            curve = [recorded["valid"]["loss"][point] for point in TASKSET_RUNGS]
            values = [value for value in curve if math.isfinite(value)]
            rungs = min(len(values) + 1, len(curve))  # the rung that is not finite took its time, too
            rows.append(
                {
                    "dataset": file.stem.removeprefix("FixedTextRNNClassification_"),
                    "params": json.dumps(params),
                    "steps": list(range(1, rungs + 1)),
                    "values": values,
                    "seconds": [float(rung) for rung in range(1, rungs + 1)],
                    "failed": len(values) < len(curve),
                }
            )
    return rows


def _scaling_law(source: Path) -> list[dict[str, Any]]:
    rows = []
    for file in sorted((source / "scaling_law").glob("*.csv")):
        recorded = pandas.read_csv(file)
        sizes = [int(column) for column in recorded.columns if column.isdigit() and column != "0"]
        for _, row in recorded.iterrows():
            rows.append(
                {
                    "dataset": file.stem,
                    "params": json.dumps({"model": row["config name"]}),
                    "steps": [size // sizes[0] for size in sizes],
                    "values": [row[str(size)] for size in sizes],
                    "seconds": [size * row["size"] / 1e15 for size in sizes],
                    "failed": False,
                }
            )
    return rows


def write_table(rows: list[dict[str, Any]], file: Path) -> None:
    """Write the rows of one family, numbers in single precision."""
    import pyarrow
    import pyarrow.parquet

    curve, text = pyarrow.list_(pyarrow.float32()), pyarrow.string()
    schema = {"dataset": text, "params": text, "steps": pyarrow.list_(pyarrow.int32())}
    schema |= {"values": curve, "seconds": curve, "failed": pyarrow.bool_()}
    if "memory_mb" in rows[0]:
        schema["memory_mb"] = pyarrow.int32()
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(schema.items()))
    pyarrow.parquet.write_table(table, file, compression="zstd")
    print(f"{file}: {len(rows)} configurations, {file.stat().st_size / 2**20:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with taskset/ and scaling_law/")
    parser.add_argument("--into", type=Path, default=DATA)
    arguments = parser.parse_args()
    write_table(_taskset(arguments.source), arguments.into / "taskset.parquet")
    write_table(_scaling_law(arguments.source), arguments.into / "scaling_law.parquet")


if __name__ == "__main__":
    main()
