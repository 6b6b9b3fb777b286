"""Measures the time until a search reaches the score of `Trainer.hyperparameter_search`, with all parts of hpo.

    python benchmarks/time_to_target.py --quick                                            # three minutes on 2 cores
    python benchmarks/time_to_target.py --data ../shared/datasets/banking77 --results runs.jsonl --plot target.html

The quickstart's search space and four models, searched jointly, on the same rows. For each seed the sides run one
after another, in alternating order. Each search is a process of its own with an empty home, so that nothing is cached.
Time is measured from the start of the process; CPU seconds are those of all its processes.

- default, tuned: `Trainer.hyperparameter_search` with Optuna's TPE. Default: float32, each trial evaluated at its end,
  checkpoints. Tuned: bf16, batches grouped by length, evaluation each epoch, Optuna's median pruner, no checkpoint.
- hpo: `hpo run` with its defaults and the first trials of `search_space: text-encoders`. `hpo, first trials`: with
  those of the quickstart's file instead, which were chosen on the same data.
- ray: Ray Tune's ASHA with hpo's training loop.
- hpo without …: one part switched off.

The target is the median, over seeds, of the best validation score that a rival ends with. A search reaches it with a
complete trial: reports before the end, and pruned trials, do not count. A search that never reaches it counts as
infinitely long. hpo's confirmation and final model follow the search and are listed separately. Test scores are those
of the best trial's configuration, trained on the training split with the side's own training.

With `--results` each search is appended to a file, and the same command resumes.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from meter import Meter, spent_by_children
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
QUICKSTART = ROOT / "studies" / "quickstart.yaml"
PORTFOLIO = ROOT / "search_spaces" / "text-encoders.yaml"
RIVALS = ("default", "tuned")
# Searches that differ in one of these are not comparable.
SETTINGS = ("rows", "validation_rows", "test_rows", "trials", "pruning_trials", "threads")
SPLITS = ("train", "validation", "test")
Row = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """The settings of an `hpo run`: keys of the study file, and parts that only `switched_off.py` can switch off."""

    overrides: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    first_trials: bool = False  # those that the quickstart's study file names


# The gain of a part is the difference to `hpo`.
VARIANTS = {
    "hpo": Variant(),
    "hpo, first trials": Variant(first_trials=True),
    "hpo without cache": Variant(parts=("cache",)),
    "hpo without batching": Variant(parts=("batching",)),
    "hpo without ranking": Variant({"rank": False}),
    "hpo without pruning": Variant({"pruner": {"name": "none"}}),
    "hpo without portfolio": Variant(parts=("portfolio",)),
}
SIDES = (*RIVALS, *VARIANTS, "ray")


class Searches:
    """Runs searches on one dataset, whose rows and studies are in a folder."""

    def __init__(self, data: Path, folder: Path, arguments: argparse.Namespace) -> None:
        from hpo.config.load import load_config

        self.name = data.name
        self._folder = folder
        self._arguments = arguments
        self._quickstart = load_config(QUICKSTART)
        self.settings = {name: getattr(arguments, name) for name in SETTINGS}
        write_rows(data, self._folder / "data", self.settings)

    def search(self, side: str, seed: int) -> Row:
        """Run one search; return its trials with their times."""
        home = Path(tempfile.mkdtemp(dir=self._folder))
        variant = VARIANTS.get(side, Variant())
        study = home / "study.yaml"
        trials = self._arguments.trials if side in RIVALS else self._arguments.pruning_trials
        study.write_text(json.dumps(self._study(seed, variant, trials)))  # JSON is YAML
        answer = home / "answer.json"
        asked = {"study": str(study), "threads": self._arguments.threads, "answer": str(answer), "name": "search"}
        if side in VARIANTS:
            command = [sys.executable, "-m", "switched_off" if variant.parts else "hpo.cli", "run", str(study)]
            meter = self._measure(command, home, variant.parts)
            self._measure(one_search({**asked, "side": "hpo", "storage": f"sqlite:///{home / 'hpo.db'}"}), home)
        else:
            meter = self._measure(one_search({**asked, "side": side}), home)
        return {**self._timed(meter, json.loads(answer.read_text())), "side": side, "seed": seed}

    def _study(self, seed: int, variant: Variant, trials: int) -> dict[str, Any]:
        from hpo.config.yaml import read_yaml

        plain = self._quickstart.to_dict()
        if not variant.first_trials:
            del plain["first_trials"]
        given: dict[str, Any] = {"name": "search", "seed": seed, "data": str(self._folder / "data")}
        given |= {"devices": "cpu", "workers": self._arguments.threads}
        given["portfolio"] = read_yaml(PORTFOLIO)["first_trials"]
        budget = {"max_trials": trials, "max_hours": None}
        return {**plain, **given, "budget": budget, **variant.overrides}

    def _measure(self, command: Sequence[str], home: Path, parts: Sequence[str] = ()) -> Meter:
        """Run a command with a meter. Raise `SystemExit` with the end of its log if it fails."""
        environment = {
            **os.environ,
            "HPO_HOME": str(home),
            "HF_DATASETS_CACHE": str(home / "datasets"),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": str(self._arguments.threads),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
            "SWITCHED_OFF": ",".join(parts),
            "RAY_raylet_start_wait_time_s": "300",  # on a busy machine Ray's own 60 are too few
        }
        environment.pop("HPO_STORAGE", None)
        log = home / "log.txt"
        before = spent_by_children()
        with log.open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=home)
            meter = Meter(process, self._arguments.share)
            meter.start()
            try:
                code = process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        meter.end(spent_by_children() - before)
        if code:
            raise SystemExit(f"{' '.join(command)} ended with code {code}:\n{log.read_text()[-3000:]}")
        return meter

    def _timed(self, meter: Meter, answer: Row) -> Row:
        """Return a search with its times in seconds since the start of its process."""
        trials = [
            {**trial, "seconds": seconds, "cpu_seconds": round(meter.spent_by(seconds), 2)}
            for trial in answer.pop("trials")
            for seconds in [round(trial.pop("ended") - meter.started_at, 2)]
        ]
        total = {"seconds": round(meter.samples[-1][0], 1), "cpu_seconds": round(meter.samples[-1][1], 1)}
        return {"data": self.name, **self.settings, "trials": trials, "total": total, **answer}


def one_search(case: Row) -> list[str]:
    return [sys.executable, str(HERE / "one_search.py"), json.dumps(case)]


def write_rows(source: Path, target: Path, settings: Mapping[str, int]) -> None:
    """Write the first rows of each shuffled split as CSV files, without training rows that are in another split."""
    from datasets import disable_progress_bars
    from one_trial import read_data

    disable_progress_bars()
    counts = {f"{split}_rows": settings["rows" if split == "train" else f"{split}_rows"] for split in SPLITS}
    data = read_data({"data": str(source), **counts})
    target.mkdir(parents=True)
    for split, rows in data.splits.items():
        labels = [data.label_names[label] for label in rows["label"]]
        rows.remove_columns("label").add_column("label", labels).to_csv(target / f"{split}.csv")


def read_rows(results: Path | None) -> list[Row]:
    """Read the finished searches of a file."""
    lines = results.read_text(encoding="utf-8").splitlines() if results is not None and results.exists() else []
    return [json.loads(line) for line in lines]


def best_value(row: Row) -> float:
    return max(trial["value"] for trial in row["trials"] if trial["value"] is not None)


def reached(row: Row, target: float, unit: str) -> float:
    """Return the seconds, or CPU seconds, until a complete trial reached `target`; inf if none did."""
    return next((t[unit] for t in row["trials"] if t["value"] is not None and t["value"] >= target), float("inf"))


def show(rows: Sequence[Row], console: Console) -> None:
    """Print a table for each dataset: the time to each rival's median best score."""
    for data in dict.fromkeys(row["data"] for row in rows):
        sides = {side: [r for r in rows if r["data"] == data and r["side"] == side] for side in SIDES}
        sides = {side: found for side, found in sides.items() if found}
        targets = {rival: statistics.median(map(best_value, sides[rival])) for rival in RIVALS if rival in sides}
        console.print(_table(data, sides, targets))


def _table(data: str, sides: Mapping[str, Sequence[Row]], targets: Mapping[str, float]) -> Table:
    table = Table(title=f"{data}: medians over seeds", title_justify="left")
    for name in ("side", "seeds", "best validation"):
        table.add_column(name)
    for rival, target in targets.items():
        table.add_column(f"s / CPU-s to {target:.3f} ({rival}'s)", justify="right")
        table.add_column("reached", justify="right")
        table.add_column("× less: s / CPU-s", justify="right")
    for name in ("search s / CPU-s", "total s / CPU-s", "complete, pruned, failed", "test", "final model's test"):
        table.add_column(name, justify="right")
    for side, rows in sides.items():
        cells = [side, str(len(rows)), _spread([best_value(row) for row in rows])]
        for rival, target in targets.items():
            mine, its = (_to_target(found, target) for found in (rows, sides[rival]))
            count = sum(np.isfinite(reached(row, target, "seconds")) for row in rows)
            factors = " / ".join(f"{b / a:.1f}" if np.isfinite(a) else "–" for a, b in zip(mine, its, strict=True))
            cells += [" / ".join(f"{value:.0f}" for value in mine), f"{count} of {len(rows)}", factors]
        table.add_row(*cells, *_ends(rows))
    return table


def _to_target(rows: Sequence[Row], target: float) -> tuple[float, float]:
    """Return the median seconds and CPU seconds to the target."""
    return tuple(statistics.median(reached(row, target, unit) for row in rows) for unit in ("seconds", "cpu_seconds"))  # type: ignore[return-value]


def _ends(rows: Sequence[Row]) -> list[str]:
    """Return the duration of the search and in total, the states of the trials, and the test scores."""
    last = [row["trials"][-1] for row in rows]
    states = [[trial["state"] for trial in row["trials"]] for row in rows]
    finals = [row["final_test"] for row in rows if "final_test" in row]
    pairs = [
        " / ".join(f"{statistics.median(end[unit] for end in ends):.0f}" for unit in ("seconds", "cpu_seconds"))
        for ends in (last, [row["total"] for row in rows])
    ]
    counts = [f"{np.mean([s.count(state) for s in states]):.1f}" for state in ("COMPLETE", "PRUNED", "FAIL")]
    return [*pairs, ", ".join(counts), _spread([row["test"] for row in rows]), _spread(finals) if finals else ""]


def _spread(values: Sequence[float]) -> str:
    """Format the median with the minimum and the maximum."""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def plot(rows: Sequence[Row], file: Path) -> None:
    """Write a page of the best validation score over time, a line for each search, a panel for each dataset."""
    import plotly.graph_objects as go
    from plotly.colors import qualitative
    from plotly.subplots import make_subplots

    names = list(dict.fromkeys(row["data"] for row in rows))
    figure = make_subplots(rows=len(names), cols=1, subplot_titles=names)
    for row in rows:
        complete = [trial for trial in row["trials"] if trial["value"] is not None]
        best = np.maximum.accumulate([trial["value"] for trial in complete])
        color = qualitative.D3[SIDES.index(row["side"]) % 10]
        seconds = [*(trial["seconds"] for trial in complete), row["total"]["seconds"]]
        line = go.Scatter(
            x=seconds, y=[*best, best[-1]], name=row["side"], legendgroup=row["side"], line_color=color,
            line_shape="hv", opacity=0.6, showlegend=row["seed"] == 0 and row["data"] == names[0],
        )  # fmt: skip
        figure.add_trace(line, row=names.index(row["data"]) + 1, col=1)
    figure.update_xaxes(title="seconds since the process started", type="log")
    figure.update_yaxes(title="best validation accuracy of a complete trial")
    figure.update_layout(height=480 * len(names), template="plotly_white")
    figure.write_html(file, include_plotlyjs=True)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", help="folder of text and label; may be repeated")
    parser.add_argument("--quick", action="store_true", help="200 rows, 6 trials, one seed, three sides")
    parser.add_argument("--rows", type=int, default=800, help="training rows")
    parser.add_argument("--validation-rows", type=int, default=400)
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=16, help="trials of each rival's search")
    parser.add_argument(
        "--pruning-trials",
        type=int,
        help="trials of hpo's and Ray's searches; default: --trials",
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--side", action="append", choices=SIDES, help="may be repeated; default: all")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="of a rival; workers of hpo, of one thread each"
    )
    parser.add_argument("--results", type=Path, help="JSON lines file of finished searches, to resume from")
    parser.add_argument("--plot", type=Path, help="HTML page to write")
    parser.add_argument("--share", type=int, help="Linux: the autogroup share (-20 to 19) of all processes of a search")
    arguments = parser.parse_args()
    arguments.data = arguments.data or [ROOT / "examples" / "data" / "docstrings"]
    arguments.side = arguments.side or list(SIDES)
    arguments.pruning_trials = arguments.pruning_trials or arguments.trials
    if arguments.quick:
        arguments.rows, arguments.validation_rows, arguments.test_rows = 200, 200, 200
        arguments.trials = arguments.pruning_trials = 6
        arguments.seeds, arguments.side = 1, [*RIVALS, "hpo"]
    return arguments


def main() -> None:
    arguments = read_arguments()
    rows = read_rows(arguments.results)
    with tempfile.TemporaryDirectory() as scratch:
        for data in arguments.data:
            searches = Searches(data, Path(scratch) / data.name, arguments)
            rows = [row for row in rows if row["data"] != searches.name or searches.settings.items() <= row.items()]
            finished = [row for row in rows if row["data"] == searches.name]
            known = {(row["side"], row["seed"]) for row in finished}
            turns = [(side, n) for n in range(arguments.seeds) for side in arguments.side[:: -1 if n % 2 else 1]]
            for number, (side, seed) in enumerate(turns, 1):
                if (side, seed) in known:
                    continue
                row = searches.search(side, seed)
                rows.append(row)
                if arguments.results:
                    with arguments.results.open("a", encoding="utf-8") as out:
                        out.write(json.dumps(row) + "\n")
                summary = f"best {best_value(row):.3f}, {row['total']['seconds']:.0f} s, test {row['test']:.3f}"
                print(f"[{searches.name} {number} of {len(turns)}] {side}, seed {seed}: {summary}", flush=True)
    console = Console(width=None if sys.stdout.isatty() else 230)
    show(rows, console)
    console.print(f"{platform.machine()}, {arguments.threads} threads. ×: the rival's median time / this side's.")
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
