"""Measures the time of a suggestion of hpo's default sampler in a study of 10, 100 and 1,000 trials.

    python benchmarks/suggestion_time.py           # a minute; CPU milliseconds on one thread

The study is in SQLite and has the quickstart's search space with adapters. A tenth of its trials are complete, the
rest were pruned at early rungs.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from recorded import CONDITIONS, FINE_TUNING
from rich.console import Console
from rich.table import Table as Lines

from hpo.search.freeze_thaw import FreezeThawSampler
from hpo.storage.records.trial import CurvePoint, TrialRecord
from hpo.storage.storage import open_storage

RUNGS_PER_TRIAL = 16
SPACE = {"model": optuna.distributions.CategoricalDistribution(["a", "b", "c", "d"]), **FINE_TUNING}


def synthetic_trial(number: int, rng: np.random.Generator) -> FrozenTrial:
    """Return a trial with parameters, reports, times and a state as in a search."""
    sampler, study = optuna.samplers.RandomSampler(number), optuna.create_study()
    trial = study.ask()
    params = {}
    for name, kind in SPACE.items():
        parent, needed = CONDITIONS.get(name, (name, None))
        if needed is None or params[parent] == needed:
            params[name] = sampler.sample_independent(study, study.trials[trial.number], name, kind)
    complete = number % 10 == 0
    rungs = RUNGS_PER_TRIAL if complete else int(rng.integers(1, 6))
    end = rng.random()
    values = {step: end + 0.7**step + 0.01 * rng.standard_normal() for step in range(1, rungs + 1)}
    point = CurvePoint(step=rungs, epoch=rungs, train_loss=0, seconds=3.0 * rungs)
    return create_trial(
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        value=values[rungs] if complete else None,
        params=params,
        distributions={name: SPACE[name] for name in params},
        intermediate_values=values,
        **TrialRecord(rungs=RUNGS_PER_TRIAL, curve=(point,)).attributes(),
    )


def suggest(study: optuna.Study) -> None:
    """Start a new trial with its parameters."""
    study.ask()._suggest("model", SPACE["model"])  # samples the others with it


def milliseconds(work: Callable[[], object], times: int) -> str:
    """Return the median of the CPU milliseconds, and the maximum: that of a suggestion that fits the kernel again."""
    times_ms = []
    for _ in range(times):
        started = time.process_time()
        work()
        times_ms.append(1000 * (time.process_time() - started))
    return f"{statistics.median(times_ms):.0f} ({max(times_ms):.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--times", type=int, default=9)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    lines = Lines("trials", "a suggestion", title="ms: median (maximum)")
    for count in arguments.trials:
        with tempfile.TemporaryDirectory() as folder:
            storage = open_storage(f"sqlite:///{Path(folder) / 'hpo.db'}")
            study = optuna.create_study(storage=storage, sampler=FreezeThawSampler(0))
            rng = np.random.default_rng(0)
            study.add_trials([synthetic_trial(number, rng) for number in range(count)])
            lines.add_row(str(count), milliseconds(lambda study=study: suggest(study), arguments.times))
    Console(width=120).print(lines)


if __name__ == "__main__":
    main()
