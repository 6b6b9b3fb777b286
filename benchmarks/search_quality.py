"""Measures regret over compute: replays samplers and pruners on recorded curves in simulated asynchronous time.

    python benchmarks/search_quality.py --quick                         # under 3 minutes on one core
    python benchmarks/search_quality.py --seeds 20 --results runs.jsonl --plot quality.html

The samplers and pruners are built by name, as for a study file, and run on an in-memory Optuna study. W workers ask for
trials, report recorded values after recorded seconds, and prune, by a simulated clock. Regret is that of the best
*complete* trial so far: 0 is the table's best final value, 1 its median or worse. Compute is the sum over all workers,
in full trainings of the table's mean duration: 32, or a quarter of what a small table holds. Intervals are 95%, by
bootstrap over seeds.

No search reads another one's curves. (The constants of `hpo.search.surrogate.model` are round numbers that were not
fitted to the tables.) With `--results` each run is appended to a file, and the same command resumes.
"""

import argparse
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from recorded import DATA, Table, read_tables
from rich.console import Console
from rich.progress import track
from rich.table import Table as Lines
from simulated import FIRST_TRIALS, METHODS, POINTS, Case, replay

PEER = "tpe+hyperband"
RESAMPLES = 1000


def replay_all(
    tables: Sequence[Table], cases: Sequence[Case], trainings: float, file: Path | None
) -> list[dict[str, Any]]:
    """Replay the cases that `file` does not contain yet, and append them; return the results of all."""
    known = {tuple(row["case"]): row for row in _read(file)}
    by_name = {table.name: table for table in tables}
    for case in track([case for case in cases if case not in known], "replaying"):
        known[case] = replay(by_name[case.table], case, trainings)
        if file is not None:
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(known[case]) + "\n")
    return [known[case] for case in cases]


def _read(file: Path | None) -> list[dict[str, Any]]:
    lines = file.read_text(encoding="utf-8").splitlines() if file is not None and file.exists() else []
    return [json.loads(line) for line in lines]


class Curves(NamedTuple):
    """Mean regret over compute of one method on one family, (POINTS,), and its resamples, (RESAMPLES, POINTS)."""

    mean: np.ndarray
    resampled: np.ndarray

    def interval(self, point: int) -> str:
        """Return the mean and the 95% interval at a point of the compute."""
        low, high = np.quantile(self.resampled[:, point], (0.025, 0.975))
        return f"{self.mean[point]:.3f} [{low:.3f}, {high:.3f}]"


def average(rows: Sequence[Mapping[str, Any]]) -> Curves:
    """Average over tables and seeds. Seeds are resampled within each table, the same ones for every method."""
    tables = sorted({row["case"][1] for row in rows})
    regrets = np.array([[row["regrets"] for row in rows if row["case"][1] == table] for table in tables])
    seeds = regrets.shape[1]
    sampled = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, len(tables), seeds))
    resampled = np.zeros((RESAMPLES, POINTS))
    for index in range(len(tables)):
        resampled += regrets[index][sampled[:, index]].mean(axis=1) / len(tables)
    return Curves(regrets.mean(axis=(0, 1)), resampled)


def share_to_reach(curves: Curves, peer: Curves) -> str:
    """Return the share of the compute after which a method reaches the final regret of its peer."""

    def reached(mean: np.ndarray, target: float) -> float:
        points = np.flatnonzero(mean <= target + 1e-9)
        return (points[0] + 1) / POINTS if len(points) else math.inf

    shares = [reached(m, p[-1]) for m, p in zip(curves.resampled, peer.resampled, strict=True)]
    low, high = np.quantile(shares, (0.025, 0.975), method="nearest")
    texts = [
        f"{share:.2f}" if math.isfinite(share) else ">1" for share in (reached(curves.mean, peer.mean[-1]), low, high)
    ]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def behind_random(curves: Curves, random: Curves) -> str:
    """Return the greatest regret above that of random search, and at how many points it is significantly above."""
    behind = curves.mean - random.mean
    significant = np.quantile(curves.resampled - random.resampled, 0.025, axis=0) > 0
    return f"{behind.max():+.3f} ({significant.sum()} of {POINTS})"


def show(results: Sequence[Mapping[str, Any]], console: Console) -> dict[tuple[str, int], dict[str, Curves]]:
    """Print a table for each family and number of workers; return the curves."""
    found: dict[tuple[str, int], dict[str, Curves]] = {}
    for family, workers in sorted({(row["case"][0], row["case"][3]) for row in results}):
        rows = [row for row in results if (row["case"][0], row["case"][3]) == (family, workers)]
        names = [name for name in METHODS if any(row["case"][2] == name for row in rows)]
        by_name = {name: [row for row in rows if row["case"][2] == name] for name in names}
        curves = {name: average(of_it) for name, of_it in by_name.items()}
        lines = Lines(title=f"{family}, {workers} worker{'s' * (workers > 1)}")
        for heading in ("method", "regret at a third", "at the end", f"share to {PEER}'s end", "worse than random"):
            lines.add_column(heading)
        lines.add_column("trials (complete, failed)")
        lines.add_column("ms a trial")
        for name in names:
            peer, random = curves.get(PEER), curves.get("random")
            counts = [np.mean([row[key] for row in by_name[name]]) for key in ("trials", "complete", "failed")]
            lines.add_row(
                name,
                curves[name].interval(POINTS // 3 - 1),
                curves[name].interval(POINTS - 1),
                share_to_reach(curves[name], peer) if peer else "",
                behind_random(curves[name], random) if random else "",
                f"{counts[0]:.0f} ({counts[1]:.0f}, {counts[2]:.0f})",
                f"{np.mean([row['overhead_ms'] for row in by_name[name]]):.0f}",
            )
        console.print(lines)
        found[family, workers] = curves
    return found


def plot(found: Mapping[tuple[str, int], Mapping[str, Curves]], file: Path) -> None:
    """Write a page of regret over compute with intervals, a panel for each family and number of workers."""
    import plotly.graph_objects as go
    from plotly.colors import qualitative
    from plotly.subplots import make_subplots

    titles = [f"{family}, {workers} worker{'s' * (workers > 1)}" for family, workers in found]
    figure = make_subplots(rows=len(found), cols=1, subplot_titles=titles)
    compute = np.arange(1, POINTS + 1) / POINTS
    for row, curves in enumerate(found.values(), start=1):
        for name, curve in curves.items():
            color = qualitative.Plotly[list(METHODS).index(name) % 10]
            low, high = np.quantile(curve.resampled, (0.025, 0.975), axis=0)
            group = {"legendgroup": name, "line_color": color}
            band = go.Scatter(
                x=[*compute, *compute[::-1]], y=[*high, *low[::-1]], fill="toself", opacity=0.15, mode="none",
                fillcolor=color, legendgroup=name, showlegend=False, hoverinfo="skip",
            )  # fmt: skip
            line = go.Scatter(x=compute, y=curve.mean, name=name, showlegend=row == 1, mode="lines", **group)
            figure.add_traces([band, line], rows=row, cols=1)
    figure.update_xaxes(title="share of the compute")
    figure.update_yaxes(title="regret", type="log")
    figure.update_layout(height=420 * len(found), template="plotly_white")
    figure.write_html(file, include_plotlyjs=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of tables")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one table a family, 4 workers, 3 seeds, without the slow gp",
    )
    parser.add_argument("--family", nargs="*", help="families of tables; default: all")
    parser.add_argument("--method", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--wholes", type=float, default=32, help="maximum compute of a search, in full trainings")
    parser.add_argument("--results", type=Path, help="JSON lines file of finished runs, to resume from")
    parser.add_argument("--plot", type=Path, help="HTML page to write")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    tables = [t for t in read_tables(arguments.data) if not arguments.family or t.family in arguments.family]
    methods, workers, seeds = arguments.method, arguments.workers, arguments.seeds
    if arguments.quick:
        tables = list({table.family: table for table in tables}.values())
        methods, workers, seeds = [name for name in methods if name != "gp"], [4], 3
    cases = [
        Case(table.family, table.name, method, count, seed)
        for seed in range(seeds)
        for count in workers
        for table in tables
        for method in methods
        if method != FIRST_TRIALS or table.first_trials
    ]
    results = replay_all(tables, cases, arguments.wholes, arguments.results)
    found = show(results, Console(width=160))
    if arguments.plot:
        plot(found, arguments.plot)


if __name__ == "__main__":
    main()
