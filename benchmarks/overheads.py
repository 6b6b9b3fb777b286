"""The overhead of a search: time to the first step, between trials and for a report; memory of a worker.

    python benchmarks/overheads.py                 # about 3 minutes on 2 cores

- first step: seconds from the start of `hpo run` on a new study to the first optimizer step of its first trial, in new
  processes and folders, computed from the trial's record (its end minus its seconds of training and evaluation).
- turnaround: from the last evaluation of a trial to the first optimizer step of the next in a warm worker, in total and
  without copying the model's weights, with its parts. Goal: under 100 ms without loading weights.
- report: writing the value of a rung to SQLite and calling the pruner.
- memory: private memory of a worker process after each of 50 trials, the first ten compared with the last ten.

The trials are real but tiny: two bundled models, about a hundred synthetic texts, two epochs. One worker runs them in
this process on one thread, with timers around hpo's methods.
"""

import argparse
import functools
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "models"
MODELS = ("bert-3x128", "distilbert-2x160")
WARM_UP = 5  # trials, which fill the caches of each model: weights, tokens, frozen layers
ENDS = 10  # trials at either end that are compared for memory
Figures = dict[str, Any]


class Span(NamedTuple):
    """A call of a timed method, in seconds of `time.perf_counter`."""

    name: str
    started: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.started


class Clock:
    """Records a span for every call of the methods that it wraps."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def wrap(self, owner: type, method: str, name: str) -> None:
        call = getattr(owner, method)

        @functools.wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.spans.append(Span(name, started, time.perf_counter()))

        setattr(owner, method, timed)

    def spans_of(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


def write_data(folder: Path) -> Path:
    """Write texts of two classes with different vocabularies, of 5 to 40 words."""
    rng = random.Random(0)
    words = {
        "database": "table column row index query commit transaction engine session server key lock".split(),
        "network": "graph node edge path weight flow cut degree cycle tree matching component".split(),
    }
    common = "the of a with each all this returns and in given if not value or number is".split()
    folder.mkdir()
    for split, rows in (("train", 96), ("validation", 32), ("test", 32)):
        lines = ["text,label"]
        for row in range(rows):
            label = list(words)[row % 2]
            text = " ".join(rng.choice(rng.choice((words[label], common))) for _ in range(5 + row % 36))
            lines.append(f"{text},{label}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_study(folder: Path, trials: int) -> dict[str, Any]:
    """Return a study of tiny trials, similar to that of the quickstart."""
    return {
        "name": "overheads",
        "data": str(folder / "data"),
        "models": [str(EXAMPLES / model) for model in MODELS],
        "search_space": {
            "learning_rate": {"low": 1e-4, "high": 5e-3, "log": True},
            "batch_size": [16, 32],
            "epochs": 2,
            "frozen_layers": {"share": [0, 1]},
            "weight_decay": {"low": 0.0, "high": 0.1},
            "dropout": {"low": 0.0, "high": 0.2},
        },
        "budget": {"max_trials": trials},
        "confirm": {"top": 1, "seeds": 1},
        "devices": "cpu",
    }


def to_first_step(folder: Path) -> Figures:
    """Measure the seconds from `hpo run`, with an empty home, to its first trial, first step and end."""
    study = folder / "study.yaml"
    study.write_text(json.dumps(make_study(folder, trials=1)))  # JSON is YAML
    with tempfile.TemporaryDirectory() as home:
        database = f"sqlite:///{Path(home) / 'hpo.db'}"
        started = datetime.now()
        done = subprocess.run(
            [sys.executable, "-c", "from hpo.cli import main; main()", "run", str(study)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HPO_HOME": home},
        )
        ended = datetime.now()
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        script = "import json, sys, optuna; optuna.logging.set_verbosity(30); "
        script += "t = optuna.load_study(study_name='overheads', storage=sys.argv[1]).trials[0]; "
        script += "print(json.dumps([str(t.datetime_start), str(t.datetime_complete), t.user_attrs['seconds']]))"
        query = subprocess.run([sys.executable, "-c", script, database], capture_output=True, text=True, check=True)
    start, complete, seconds = json.loads(query.stdout)
    trained = seconds["train"] + seconds["evaluate"] + seconds["checkpoint"]
    return {
        "to_first_trial": (datetime.fromisoformat(start) - started).total_seconds(),
        # Too large by the time of the trial's reports and its result, about 50 ms.
        "to_first_step": (datetime.fromisoformat(complete) - started).total_seconds() - trained,
        "to_the_end": (ended - started).total_seconds(),
    }


def work(folder: Path, trials: int, threads: int) -> tuple[Clock, list[float]]:
    """Run a search of `trials` in this process. Returns the spans and the megabytes used after each trial."""
    import optuna

    from hpo.config.load import load_config
    from hpo.core.paths import default_storage
    from hpo.storage.lease import Worker
    from hpo.storage.records.trial import TrialRecord
    from hpo.storage.storage import open_storage
    from hpo.training.execution import choose_execution
    from hpo.training.fine_tune import FineTuning
    from hpo.training.memory.micro_batch import _resident_bytes
    from hpo.training.models.candidate import Candidate
    from hpo.workflow.context import StudyContext
    from hpo.workflow.launch.create import create_study
    from hpo.workflow.worker.loop import WorkerLoop, WorkerSpec

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    clock, memory = Clock(), []
    for owner, method, name in (
        (FineTuning, "_train_step", "step"),
        (FineTuning, "_report", "evaluation"),
        (FineTuning, "__init__", "preparing the run"),
        (FineTuning, "_skip_frozen_layers", "frozen layers' cache"),
        (FineTuning, "_fit_memory", "micro-batch size"),
        (Candidate, "build", "copying weights"),
        (Worker, "claim", "claiming the trial"),
        (Worker, "finish", "writing the result"),
        (optuna.Trial, "_suggest", "sampling parameters"),
        (TrialRecord, "save", "recording attributes"),
        (optuna.Trial, "report", "report"),
        (optuna.Trial, "should_prune", "prune"),
        (StudyContext, "plan", "model and data"),
    ):
        clock.wrap(owner, method, name)
    finish = Worker.finish

    def finish_and_measure(self: Worker, *args: Any, **kwargs: Any) -> None:
        finish(self, *args, **kwargs)
        memory.append(_resident_bytes() / 2**20)

    Worker.finish = finish_and_measure  # type: ignore[method-assign]
    config = load_config(make_study(folder, trials))
    storage = open_storage(None)
    context = StudyContext.create(config, choose_execution("cpu", threads))
    study = create_study(context, storage)
    WorkerLoop(WorkerSpec(config.name, default_storage(), "cpu", threads, threads), context, storage).work()
    storage.engine.dispose()
    assert len(study.get_trials(deepcopy=False)) == trials
    return clock, memory[:trials]  # later runs confirmed the winner


def turnarounds(clock: Clock, trials: int) -> Iterator[dict[str, float]]:
    """Yield the milliseconds of each turnaround between two trials, in total and by part."""
    runs = clock.spans_of("preparing the run")[:trials]
    for earlier, later in itertools.pairwise(runs):
        started = max(s.ended for s in clock.spans_of("evaluation") if earlier.ended < s.started < later.started)
        ended = min(s.started for s in clock.spans_of("step") if s.started > later.ended)
        parts: dict[str, float] = {"all": 1000 * (ended - started)}
        for span in clock.spans:
            if started <= span.started and span.ended <= ended:
                parts[span.name] = parts.get(span.name, 0.0) + 1000 * span.seconds
        parts["preparing the run"] -= parts["copying weights"]  # nested
        parts["other"] = 2 * parts["all"] - sum(parts.values())
        yield parts


def spread(values: list[float]) -> dict[str, float]:
    tenths = statistics.quantiles(values, n=10)
    return {"median": statistics.median(values), "p10": tenths[0], "p90": tenths[-1]}


def measure_worker(folder: Path, trials: int, threads: int) -> Figures:
    """Measure turnaround, reports and memory of a warm worker."""
    clock, memory = work(folder, WARM_UP + trials, threads)
    found = list(turnarounds(clock, WARM_UP + trials))[WARM_UP - 1 :]
    names = sorted({name for turn in found for name in turn} - {"all"})
    parts = {name: statistics.median(turn.get(name, 0.0) for turn in found) for name in names}
    reports, decisions = clock.spans_of("report")[WARM_UP:], clock.spans_of("prune")[WARM_UP:]
    used = memory[WARM_UP:]
    first, last = statistics.mean(used[:ENDS]), statistics.mean(used[-ENDS:])
    return {
        "turnaround_ms": spread([turn["all"] for turn in found]),
        "turnaround_without_weights_ms": spread([turn["all"] - turn["copying weights"] for turn in found]),
        "turnaround_parts_ms": dict(sorted(parts.items(), key=lambda part: -part[1])),
        "report_ms": spread([1000 * span.seconds for span in reports]),
        "pruning_decision_ms": spread([1000 * span.seconds for span in decisions]),
        "memory_mb": {"first": first, "last": last, "growth_per_trial": (last - first) / (trials - ENDS)},
        "memory_mb_by_trial": [round(value, 1) for value in memory],
    }


def show(machine: Figures, starts: list[Figures], worker: Figures, trials: int) -> None:
    """Print the table and the parts of a turnaround."""
    table = Table(title="Overhead of a search", title_justify="left")
    table.add_column("what")
    table.add_column("median", justify="right")
    table.add_column("spread", justify="right")
    for name, label in (
        ("to_first_trial", "`hpo run` to its first trial"),
        ("to_first_step", "`hpo run` to its first step"),
        ("to_the_end", "`hpo run` of one trial to the end (confirmed, retrained, report)"),
    ):
        values = [start[name] for start in starts]
        table.add_row(label, f"{statistics.median(values):.1f} s", f"{min(values):.1f} to {max(values):.1f} s")
    for name, label in (
        ("turnaround_ms", "from one trial to the next one's first step"),
        ("turnaround_without_weights_ms", "… without copying the weights"),
        ("report_ms", "a report"),
        ("pruning_decision_ms", "a pruning decision"),
    ):
        row = worker[name]
        table.add_row(label, f"{row['median']:.1f} ms", f"{row['p10']:.1f} to {row['p90']:.1f} ms")
    memory = worker["memory_mb"]
    table.add_row(
        f"memory, trials 1–{ENDS} and {trials - ENDS + 1}–{trials}",
        f"{memory['first']:.0f}, {memory['last']:.0f} MB",
        f"{memory['growth_per_trial']:+.2f} MB a trial",
    )
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(table)
    parts = ", ".join(f"{name} {ms:.1f}" for name, ms in worker["turnaround_parts_ms"].items() if ms >= 0.05)
    console.print(f"Median parts of a turnaround, ms: {parts}.")
    console.print(
        f"Spread: fastest to slowest of {len(starts)}; 10th to 90th percentile of {trials} trials. "
        f"{machine['processor']}, {machine['threads']} thread(s)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50, help=f"trials of the warm worker, after {WARM_UP} others")
    parser.add_argument("--repeats", type=int, default=3, help="runs of `hpo run`")
    parser.add_argument("--threads", type=int, default=1, help="threads of the warm worker")
    parser.add_argument("--output", type=Path, default=Path("overheads.json"))
    arguments = parser.parse_args()
    if arguments.trials < 2 * ENDS:
        parser.error(f"--trials: {2 * ENDS} at least, for the memory of the first and the last {ENDS}")
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    os.environ.pop("HPO_STORAGE", None)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        write_data(folder / "data")
        starts = []
        for _ in range(arguments.repeats):
            starts.append(to_first_step(folder))
            print(f"to the first step: {starts[-1]['to_first_step']:.1f} s", flush=True)
        os.environ["HPO_HOME"] = str(folder / "home")
        worker = measure_worker(folder, arguments.trials, arguments.threads)
    from one_trial import describe_machine  # in this folder; imported late because it loads torch

    machine = describe_machine({"device": "cpu", "threads": arguments.threads})
    found = {"machine": machine, "trials": arguments.trials, "hpo_run_seconds": starts, "worker": worker}
    arguments.output.write_text(json.dumps(found, indent=1))
    show(machine, starts, worker, arguments.trials)


if __name__ == "__main__":
    main()
