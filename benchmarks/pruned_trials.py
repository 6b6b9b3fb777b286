"""Trains the pruned trials of a study to their last epoch and counts those that would have been in the top 3.

    python benchmarks/pruned_trials.py quickstart

Each is trained from its own parameters and seed. The study is not changed.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpo.config.trial_params import TrialParams
from hpo.core.direction import loss_sign
from hpo.core.format import score
from hpo.errors import TrialError
from hpo.reporting.console import console
from hpo.storage.records.study import StudyRecord, complete_trials, direction_of
from hpo.storage.records.trial import TrialRecord
from hpo.storage.storage import open_storage
from hpo.training.execution import assign_devices, choose_execution, cores
from hpo.training.fine_tune import FineTuning
from hpo.workflow.context import StudyContext
from hpo.workflow.studies import open_study

TOP = 3


def finish(context: StudyContext, trial: FrozenTrial) -> float | None:
    """Return the final value of the fully trained trial; None where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        record = TrialRecord.of(trial)
        run = FineTuning(context.plan(TrialParams(**record.params), record.seed or 0, Path(folder)))
        try:
            return [report.value for report in run.reports()][-1]
        except TrialError:
            return None


def finish_pruned(study: optuna.Study) -> dict[str, Any]:
    """Finish the pruned trials; return their values, and which of them would be among the best `TOP` of all."""
    known = StudyRecord.of(study)
    config = known.study_config
    context = StudyContext.create(config, choose_execution(assign_devices(config.devices, 1)[0], cores()))
    context.check_fingerprint(known.data.fingerprint)
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    values: dict[int, float | None] = {}
    with console.progress(f"finishing {len(pruned)} pruned trials", total=len(pruned)) as advance:
        for trial in pruned:
            values[trial.number] = finish(context, trial)
            advance()
    complete = [float(trial.value or 0.0) for trial in complete_trials(study)]
    sign = loss_sign(direction_of(study))
    ranked = sorted([*complete, *(v for v in values.values() if v is not None)], key=lambda v: sign * v)
    threshold = ranked[min(TOP, len(ranked)) - 1]
    in_top = [number for number, value in values.items() if value is not None and sign * value <= sign * threshold]
    return {"values": {str(n): v for n, v in values.items()}, "in_top_3": in_top, "best_complete": complete[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", help="the study's name; without it, the latest")
    parser.add_argument("--storage", help="database URL")
    arguments = parser.parse_args()
    study = open_study(open_storage(arguments.storage), arguments.study)
    found = finish_pruned(study)
    for number, value in found["values"].items():
        reached = list(study.trials[int(number)].intermediate_values.values())[-1]
        console.note(f"trial {number}: pruned at {score(reached)}, final value {score(value)}")
    console.note(
        f"{len(found['values'])} pruned trials finished; {len(found['in_top_3'])} would have been in the top {TOP}; "
        f"the best complete trial has {score(found['best_complete'])}."
    )


if __name__ == "__main__":
    main()
