"""How long does hpo's own search take to suggest a trial, and to decide on one, in a study of 10, 100 and 1,000 trials?

    python benchmarks/suggestion_time.py           # a minute; milliseconds of the processor, on one thread

The study is in SQLite and has the quickstart's space with adapters. Of its trials a tenth is complete, the rest was
stopped at early rungs; as many of those are paused as a search keeps.
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

from hpo.search.freeze_thaw import MOST_PAUSED, FreezeThawPruner, FreezeThawSampler
from hpo.storage.records import CURVE
from hpo.storage.storage import open_storage
from hpo.storage.transactions import PAUSED, RUNGS

WHOLE = 16  # rungs of a trial
SPACE = {"model": optuna.distributions.CategoricalDistribution(["a", "b", "c", "d"]), **FINE_TUNING}


def made_up(number: int, rng: np.random.Generator) -> FrozenTrial:
    """A trial with parameters, reports, times and a state as they come in a search."""
    sampler, study = optuna.samplers.RandomSampler(number), optuna.create_study()
    trial = study.ask()
    params = {}
    for name, kind in SPACE.items():
        parent, needed = CONDITIONS.get(name, (name, None))
        if needed is None or params[parent] == needed:
            params[name] = sampler.sample_independent(study, study.trials[trial.number], name, kind)
    complete, paused = number % 10 == 0, number % 10 in (1, 2, 3) and number < 10 / 3 * MOST_PAUSED
    rungs = WHOLE if complete else int(rng.integers(1, 6))
    end = rng.random()
    values = {step: end + 0.7**step + 0.01 * rng.standard_normal() for step in range(1, rungs + 1)}
    state = TrialState.COMPLETE if complete else TrialState.WAITING if paused else TrialState.PRUNED
    return create_trial(
        state=state,
        value=values[rungs] if complete else None,
        params=params,
        distributions={name: SPACE[name] for name in params},
        intermediate_values=values,
        user_attrs={RUNGS: WHOLE} | ({PAUSED: 1} if paused else {}),
        system_attrs={CURVE: [{"step": rungs, "seconds": 3.0 * rungs}]},
    )


def begin(study: optuna.Study) -> optuna.Trial:
    """A new trial with its parameters, as a worker begins one: `Study.ask` would go on with one that is paused."""
    study._thread_local.cached_all_trials = None
    trial = optuna.Trial(study, study._storage.create_new_trial(study._study_id))
    trial._suggest("model", SPACE["model"])  # samples the others with it
    return trial


def milliseconds(work: Callable[[], object], times: int) -> str:
    """Median of the processor's milliseconds, and the longest: where the kernel's lengths are searched for anew."""
    took = []
    for _ in range(times):
        began = time.process_time()
        work()
        took.append(1000 * (time.process_time() - began))
    return f"{statistics.median(took):.0f} ({max(took):.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--times", type=int, default=9)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    lines = Lines(
        "trials", "a suggestion", "a decision at a rung", "which paused one goes on", title="ms: median (most)"
    )
    for count in arguments.trials:
        with tempfile.TemporaryDirectory() as folder:
            storage = open_storage(f"sqlite:///{Path(folder) / 'hpo.db'}")
            pruner = FreezeThawPruner()
            study = optuna.create_study(storage=storage, sampler=FreezeThawSampler(0), pruner=pruner)
            rng = np.random.default_rng(0)
            study.add_trials([made_up(number, rng) for number in range(count)])
            running = begin(study)
            running.set_user_attr(RUNGS, WHOLE)
            running.report(0.8, 1)
            decided = milliseconds(running.should_prune, arguments.times)
            resumed = milliseconds(lambda study=study, pruner=pruner: pruner.resume(study), arguments.times)
            lines.add_row(str(count), milliseconds(lambda study=study: begin(study), arguments.times), decided, resumed)
    Console(width=120).print(lines)


if __name__ == "__main__":
    main()
