"""Records the learning curves of many configurations with hpo's own engine, for `search_quality.py` to replay.

    python benchmarks/record_curves.py --data ../shared/datasets/tweet_emotion --configurations 300 --into curves --pack

Four bundled models, the quickstart's search space with LoRA, four rungs an epoch. Configuration N is the Nth random
draw, the same on every dataset. Seconds are the processor's, so that other work on the machine stays out of them;
features of frozen layers come from the cache where an earlier configuration left them. What was measured is appended to
`INTO/DATASET.jsonl` as a configuration ends, and the same command goes on from there. `--pack` writes what all files of
`INTO` hold to `benchmarks/data/fine_tuning.parquet`. `--begin` records what a search would begin with on each of the
datasets, the models by their rank and the configurations tried first, and writes that beside the table.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import BaseTrial, FixedTrial
from recorded import BEGINNINGS, DATA, read_tables, write_table
from rich.progress import track

os.environ.setdefault("HPO_HOME", str(Path(tempfile.gettempdir()) / "hpo-record-curves"))

from hpo.config.load import load_config
from hpo.config.study import StudyConfig
from hpo.errors import TrialError
from hpo.search.suggest import suggest
from hpo.tasks.registry import get_task
from hpo.tasks.task_data import TaskData, fingerprint
from hpo.training.execution import choose_execution, cores
from hpo.training.fine_tune import FineTuning
from hpo.workflow.context import StudyContext
from hpo.workflow.rank import rank_models

ROOT = Path(__file__).resolve().parents[1]
ADAPTERS = {
    "peft": ["none", "lora"],
    "lora_r": {"low": 4, "high": 32, "log": True, "when": {"peft": "lora"}},
    "lora_targets": {"choices": ["all-linear", "attention"], "when": {"peft": "lora"}},
}
FIRST = -1  # the number of a configuration that was not drawn, but is tried first
Row = dict[str, Any]


def study_of(folder: Path) -> StudyConfig:
    """The quickstart's models and space, and adapters, on other data."""
    changes = {"data": str(folder.absolute()), "first_trials": [], "fidelity": {"rungs_per_epoch": 4}}
    space = {f"search_space.{name}": written for name, written in ADAPTERS.items()}
    # As many trials as a search that is replayed has: they decide how many of the good defaults are tried first.
    return load_config(
        ROOT / "studies" / "quickstart.yaml", [*changes.items(), *space.items(), ("budget.max_trials", 100)]
    )


def some_rows(config: StudyConfig, train: int, validation: int) -> TaskData:
    """The first rows of the shuffled splits."""
    task = get_task(config.task)
    data = task.prepare(config.data, 0)
    wanted = (("train", data.train, train), ("validation", data.validation, validation))
    splits = {name: rows.shuffle(seed=0).select(range(min(count, len(rows)))) for name, rows, count in wanted}
    splits = {name: rows.from_dict(rows.to_dict()) for name, rows in splits.items()}
    return replace(data, **splits, test=None, fingerprint=fingerprint(task.name, splits, data.label_names))


def record(context: StudyContext, trial: BaseTrial, folder: Path) -> Row:
    """Train the configuration that `trial` suggests to its end, or to its failure."""
    Path("/proc/self/clear_refs").write_text("5")  # the process's peak of memory begins anew (proc(5); Linux only)
    params = suggest(trial, context.config.search_space, context.config.labels)
    reports: list[Row] = []
    failure, began = None, time.process_time()
    run = FineTuning(context.plan(params, seed=0, folder=folder))
    try:
        for report in run.reports():
            seconds = round(time.process_time() - began, 3)
            reports.append({**report.metrics, "seconds": seconds})
    except TrialError as error:
        failure = type(error).__name__
        reports.append({"seconds": round(time.process_time() - began, 3)})
    return {"params": trial.params, "failure": failure, "memory_mb": peak_memory_mb(), "reports": reports}


def peak_memory_mb() -> int:
    """The most memory that this process held since its peak was last cleared."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) // 1024


class Place:
    """One dataset: its workbench, and the file of what was recorded on it."""

    def __init__(self, data: Path, arguments: argparse.Namespace) -> None:
        config = study_of(data)
        rows = some_rows(config, arguments.train_rows, arguments.validation_rows)
        self.name = data.name
        self._context = StudyContext(config, choose_execution("cpu", cores()), rows)
        self._file = arguments.into / f"{data.name}.jsonl"
        self._done = {row["number"] for row in _read(self._file)}

    def record(self, number: int) -> None:
        """Configuration `number`: what a random search with this seed draws first."""
        if number not in self._done:
            drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number)).ask()
            self._keep(number, drawn)

    def begin(self) -> Row:
        """What the product begins a search with: the models by their rank, and how its first trials go.

        Their seconds are told as those of the machine that recorded the table: by what the configurations take here
        that both have.
        """
        order = rank_models(self._context).order
        queue = self._context.first_trials(order).points
        for point in track(queue, f"first trials of {self.name}"):
            if not any(row["params"] == point for row in _read(self._file)):
                self._keep(FIRST, FixedTrial(point))
        rows = _read(self._file)
        before = next(table for table in read_tables() if table.name == self.name).runs
        slower = [
            math.log(row["reports"][-1]["seconds"] / before[row["number"]].seconds[-1])
            for row in rows
            if row["number"] in range(len(before))
        ]
        unit = math.exp(statistics.fmean(slower))
        begun = [_curve(next(row for row in rows if row["params"] == point)) for point in queue]
        for run in begun:
            run["seconds"] = [round(seconds / unit, 3) for seconds in run["seconds"]]
        return {"order": order, "first_trials": begun}

    def _keep(self, number: int, trial: BaseTrial) -> None:
        with tempfile.TemporaryDirectory() as folder:
            row = {"number": number, **record(self._context, trial, Path(folder))}
        with self._file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        self._done.add(number)


def _read(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def _curve(row: Row) -> Row:
    """A row of the table: validation accuracy at each rung."""
    return {
        "params": row["params"],
        "steps": list(range(1, len(row["reports"]) + 1)),
        "values": [report["accuracy"] for report in row["reports"] if "accuracy" in report],
        "seconds": [report["seconds"] for report in row["reports"]],
        "failed": row["failure"] is not None,
    }


def pack(folder: Path, file: Path) -> None:
    """All that was drawn and recorded as one table."""
    rows = [
        {"dataset": source.stem, **_curve(row), "params": json.dumps(row["params"]), "memory_mb": row.get("memory_mb")}
        for source in sorted(folder.glob("*.jsonl"))
        for row in sorted(_read(source), key=lambda row: row["number"])
        if row["number"] != FIRST
    ]
    write_table(rows, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of text classification data")
    parser.add_argument("--configurations", type=int, default=300)
    parser.add_argument("--train-rows", type=int, default=500)
    parser.add_argument("--validation-rows", type=int, default=300)
    parser.add_argument("--into", type=Path, required=True, help="folder of what was recorded")
    parser.add_argument("--pack", action="store_true", help="write the table in the end")
    parser.add_argument("--begin", action="store_true", help="record first trials as well, and write them")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arguments.into.mkdir(parents=True, exist_ok=True)
    places = [Place(data, arguments) for data in arguments.data]
    for number in track(range(arguments.configurations), "recording"):
        for place in places:
            place.record(number)
    if arguments.pack:
        pack(arguments.into, DATA / "fine_tuning.parquet")
    if arguments.begin:
        begun = {place.name: place.begin() for place in places}
        BEGINNINGS.write_text(json.dumps(begun) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
