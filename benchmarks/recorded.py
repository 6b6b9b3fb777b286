"""Tables of recorded learning curves to replay searches on.

    python benchmarks/recorded.py --source ../shared/learning_curves --into benchmarks/data    # TaskSet, scaling law

`benchmarks/data/README.md` documents the source of each family of tables.
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
FIRST_TRIALS = DATA / "first_trials.json"  # written by `record_curves.py`
Params = dict[str, Any]

FAR = 1e3  # more than any squared distance between configurations of the same model
TASKSET_RUNGS = range(2, 51, 2)  # 25 of the 51 recorded points


@dataclass(frozen=True)
class Run:
    """One recorded training: its value at each rung, the seconds until each, and whether it failed after the last.

    `steps` number the rungs in proportion to the training done.
    """

    params: Params
    steps: tuple[int, ...]
    values: tuple[float, ...]
    seconds: tuple[float, ...]
    failed: bool


@dataclass
class Table:
    """The recorded runs of one dataset, and the search space that they were sampled from."""

    family: str
    name: str
    direction: Direction
    space: dict[str, BaseDistribution]
    runs: list[Run]
    order: tuple[str, ...] = ()  # the models as hpo ranks them on the dataset; empty if unknown
    first_trials: tuple[Run, ...] = ()  # the recorded runs of its first trials, which are not in `runs`
    _points: np.ndarray = field(init=False)
    _weights: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.finals = np.array([math.nan if run.failed else run.values[-1] for run in self.runs])
        self._points = np.array([self._encode(run.params) for run in self.runs])
        self._weights = self._distance_weights()

    @property
    def sign(self) -> float:
        """The factor that turns values into losses, of which less is better."""
        return loss_sign(self.direction)

    @property
    def conditional(self) -> bool:
        """Whether the search space has conditional parameters."""
        return any(name in CONDITIONS for name in self.space)

    @property
    def mean_seconds(self) -> float:
        """Mean seconds of a run that does not fail: the unit of compute."""
        return float(np.mean([run.seconds[-1] for run in self.runs if not run.failed]))

    def regret(self, value: float) -> float:
        """Return the regret of a final value: 0 for the best recorded one, 1 for the median or worse."""
        losses = self.sign * self.finals[np.isfinite(self.finals)]
        best, middle = losses.min(), np.median(losses)
        return float(np.clip((self.sign * value - best) / (middle - best), 0, 1))

    def run_of(self, trial: optuna.Trial, used: set[int]) -> Run:
        """Sample a configuration and return the recorded run of the same model that is nearest to it.

        Parameters are weighted by their effect on the result. No run is returned twice while there are others (`used`
        records them), so that no change of a configuration is without effect. A first trial has its own run.
        """
        for name, distribution in self.space.items():
            parent, needed = CONDITIONS.get(name, (name, None))
            if needed is None or trial.params[parent] == needed:
                trial._suggest(name, distribution)
        for run in self.first_trials:
            if run.params == trial.params:
                return run
        distances = ((self._points - self._encode(trial.params)) ** 2) @ self._weights
        repeated = [number for number in used if distances[number] < FAR]
        if len(repeated) < np.count_nonzero(distances < FAR):
            distances[repeated] = np.inf
        nearest = int(np.argmin(distances))
        used.add(nearest)
        return self.runs[nearest]

    def _encode(self, params: Params) -> list[float]:
        """Return the features of a configuration: numbers scaled from 0 to 1, categories one-hot."""
        features: list[float] = []
        for name, kind in self.space.items():
            if isinstance(kind, CategoricalDistribution):
                features += [float(params.get(name) == choice) for choice in kind.choices]
            elif isinstance(kind, FloatDistribution | IntDistribution):
                given = params.get(name, kind.low)
                low, high, value = ((math.log if kind.log else float)(x) for x in (kind.low, kind.high, given))
                features.append((value - low) / (high - low))
        return features

    def _distance_weights(self) -> np.ndarray:
        """Return the weight of each feature in distances: its importance for the ranks of the final values."""
        worst = np.nanmax(self.sign * self.finals)
        ranks = np.argsort(np.argsort(np.nan_to_num(self.sign * self.finals, nan=worst + 1)))
        trees = ExtraTreesRegressor(100, min_samples_leaf=3, random_state=0).fit(self._points, ranks)
        weights: np.ndarray = trees.feature_importances_ + 1e-3
        start = 0
        for name, kind in self.space.items():
            width = len(kind.choices) if isinstance(kind, CategoricalDistribution) else 1
            if name in SAME:
                weights[start : start + width] = FAR**2
            start += width
        return weights


def _log(low: float, high: float) -> FloatDistribution:
    return FloatDistribution(low, high, log=True)


# Metz et al., "Using a thousand optimization tasks to learn hyperparameter search strategies" (2020), appendix: the
# betas are sampled as their distance from 1.
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
# The quickstart's search space, and adapters.
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
# The parameters in which the nearest run must equal the configuration. With the batch size, epochs and adapters as well
# only one or two runs of each kind would be left.
SAME = {"model"}
DIRECTIONS: dict[str, Direction] = {"taskset": "minimize", "scaling_law": "minimize", "fine_tuning": "maximize"}


def read_tables(folder: Path = DATA) -> list[Table]:
    """Read all tables of a folder."""
    tables = []
    known = json.loads(FIRST_TRIALS.read_text(encoding="utf-8"))
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
            rungs = min(len(values) + 1, len(curve))  # the rung whose value is not finite took as long
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
    """Write the rows of one family to a Parquet file, with numbers in single precision."""
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
