"""Records the learning curves of many configurations with hpo's own engine, for `search_quality.py` to replay.

    python benchmarks/record_curves.py --data ../shared/datasets/tweet_emotion --configurations 300 --into curves --pack

Four bundled models, the quickstart's search space with LoRA, four rungs an epoch. Configuration N is the Nth random
sample, the same on every dataset. Seconds are CPU seconds, which other work on the machine does not affect; features of
frozen layers are cached between configurations. Each configuration is appended to `INTO/DATASET.jsonl` when it ends,
and the same command resumes. `--pack` writes all files of `INTO` to `benchmarks/data/fine_tuning.parquet`.
`--first-trials` records the ranking of the models and the first trials of a search on each dataset, and writes them
beside the table.
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
from recorded import DATA, FIRST_TRIALS, read_tables, write_table
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
FIRST_TRIAL = -1  # the number of a configuration that is tried first instead of sampled
Row = dict[str, Any]


def study_of(folder: Path) -> StudyConfig:
    """Return the quickstart's study on other data, with adapters in its search space."""
    changes = {"data": str(folder.absolute()), "first_trials": [], "fidelity": {"rungs_per_epoch": 4}}
    space = {f"search_space.{name}": value for name, value in ADAPTERS.items()}
    # As many trials as a replayed search has: the budget limits the number of first trials.
    return load_config(
        ROOT / "studies" / "quickstart.yaml", [*changes.items(), *space.items(), ("budget.max_trials", 100)]
    )


def first_rows(config: StudyConfig, train: int, validation: int) -> TaskData:
    """Return the first rows of the shuffled splits."""
    task = get_task(config.task)
    data = task.prepare(config.data, 0)
    wanted = (("train", data.train, train), ("validation", data.validation, validation))
    splits = {name: rows.shuffle(seed=0).select(range(min(count, len(rows)))) for name, rows, count in wanted}
    splits = {name: rows.from_dict(rows.to_dict()) for name, rows in splits.items()}
    return replace(data, **splits, test=None, fingerprint=fingerprint(task.name, splits, data.label_names))


def record(context: StudyContext, trial: BaseTrial, folder: Path) -> Row:
    """Train the configuration that `trial` suggests until it ends or fails."""
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak memory of the process (proc(5); Linux only)
    params = suggest(trial, context.config.search_space, context.config.labels)
    reports: list[Row] = []
    failure, started = None, time.process_time()
    run = FineTuning(context.plan(params, seed=0, folder=folder))
    try:
        for report in run.reports():
            seconds = round(time.process_time() - started, 3)
            reports.append({**report.metrics, "seconds": seconds})
    except TrialError as error:
        failure = type(error).__name__
        reports.append({"seconds": round(time.process_time() - started, 3)})
    return {"params": trial.params, "failure": failure, "memory_mb": peak_memory_mb(), "reports": reports}


def peak_memory_mb() -> int:
    """Return the peak memory of this process since it was last reset."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) // 1024


class Recorder:
    """Records configurations on one dataset, in a JSON lines file."""

    def __init__(self, data: Path, arguments: argparse.Namespace) -> None:
        config = study_of(data)
        rows = first_rows(config, arguments.train_rows, arguments.validation_rows)
        self.name = data.name
        self._context = StudyContext.create(config, choose_execution("cpu", cores()), rows)
        self._file = arguments.into / f"{data.name}.jsonl"
        self._done = {row["number"] for row in _read(self._file)}

    def record(self, number: int) -> None:
        """Record configuration `number`: the first sample of a random search with this seed."""
        if number not in self._done:
            sampled = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number)).ask()
            self._train(number, sampled)

    def record_first_trials(self) -> Row:
        """Return the ranked models and the curves of the first trials of a search.

        Their seconds are converted to those of the machine that recorded the table, by the ratio for the
        configurations that were recorded on both.
        """
        order = rank_models(self._context).order
        queue = self._context.first_trials(order).points
        for point in track(queue, f"first trials of {self.name}"):
            if not any(row["params"] == point for row in _read(self._file)):
                self._train(FIRST_TRIAL, FixedTrial(point))
        rows = _read(self._file)
        recorded = next(table for table in read_tables() if table.name == self.name).runs
        log_ratios = [
            math.log(row["reports"][-1]["seconds"] / recorded[row["number"]].seconds[-1])
            for row in rows
            if row["number"] in range(len(recorded))
        ]
        ratio = math.exp(statistics.fmean(log_ratios))
        curves = [_curve(next(row for row in rows if row["params"] == point)) for point in queue]
        for curve in curves:
            curve["seconds"] = [round(seconds / ratio, 3) for seconds in curve["seconds"]]
        return {"order": order, "first_trials": curves}

    def _train(self, number: int, trial: BaseTrial) -> None:
        with tempfile.TemporaryDirectory() as folder:
            row = {"number": number, **record(self._context, trial, Path(folder))}
        with self._file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        self._done.add(number)


def _read(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def _curve(row: Row) -> Row:
    """Return a row of the table, with the validation accuracy at each rung."""
    return {
        "params": row["params"],
        "steps": list(range(1, len(row["reports"]) + 1)),
        "values": [report["accuracy"] for report in row["reports"] if "accuracy" in report],
        "seconds": [report["seconds"] for report in row["reports"]],
        "failed": row["failure"] is not None,
    }


def pack(folder: Path, file: Path) -> None:
    """Write all recorded samples as one table."""
    rows = [
        {"dataset": source.stem, **_curve(row), "params": json.dumps(row["params"]), "memory_mb": row.get("memory_mb")}
        for source in sorted(folder.glob("*.jsonl"))
        for row in sorted(_read(source), key=lambda row: row["number"])
        if row["number"] != FIRST_TRIAL
    ]
    write_table(rows, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of text classification data")
    parser.add_argument("--configurations", type=int, default=300)
    parser.add_argument("--train-rows", type=int, default=500)
    parser.add_argument("--validation-rows", type=int, default=300)
    parser.add_argument("--into", type=Path, required=True, help="folder of the recorded JSON lines files")
    parser.add_argument("--pack", action="store_true", help="write the table at the end")
    parser.add_argument("--first-trials", action="store_true", help="also record a search's first trials")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arguments.into.mkdir(parents=True, exist_ok=True)
    recorders = [Recorder(data, arguments) for data in arguments.data]
    for number in track(range(arguments.configurations), "recording"):
        for recorder in recorders:
            recorder.record(number)
    if arguments.pack:
        pack(arguments.into, DATA / "fine_tuning.parquet")
    if arguments.first_trials:
        first_trials = {recorder.name: recorder.record_first_trials() for recorder in recorders}
        FIRST_TRIALS.write_text(json.dumps(first_trials) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
