"""`hpo replay`: runs a trial again from what it recorded, to compare the values."""

import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import optuna

from hpo.config.trial_params import TrialParams
from hpo.errors import StudyError
from hpo.storage.records.digests import changed_files
from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import TrialRecord
from hpo.training.cross_validation import start_training
from hpo.training.execution import Execution, available_devices
from hpo.workflow.context import StudyContext, versions
from hpo.workflow.studies import find_trial


@dataclass(frozen=True)
class Replay:
    """A trial's recorded values and those of its replay, rung by rung; `not_applied` lists what differs."""

    steps: list[int]
    recorded: list[float]
    replayed: list[float]
    not_applied: list[str]


def replay(study: optuna.Study, number: int) -> Replay:
    """Run trial `number` again with its own parameters, seed and execution. Raises `StudyError`."""
    trial, known = find_trial(study, number), StudyRecord.of(study)
    record = TrialRecord.of(trial)
    if not record.execution or record.seed is None:
        raise StudyError(f"Trial {number} failed before it recorded its plan, so it cannot be replayed.")
    execution, not_applied = _recorded_execution(record)
    for package, now in versions().items():
        before = known.versions.get(package)
        if before != now:
            not_applied.append(f"{package}: {before} then, {now} now")
    context = StudyContext.create(known.study_config, execution)
    context.check_fingerprint(known.data.fingerprint)
    not_applied += changed_files(known, known.study_config)
    recorded = trial.intermediate_values
    with tempfile.TemporaryDirectory() as folder:
        run = start_training(context.plan(TrialParams(**record.params), record.seed, Path(folder)))
        values: dict[int, float] = {}
        for report in run.reports():
            values[report.step] = report.value
            if report.step >= max(recorded, default=0):
                break
    steps = sorted(recorded)
    return Replay(steps, [recorded[step] for step in steps], [values[step] for step in steps], not_applied)


def _recorded_execution(record: TrialRecord) -> tuple[Execution, list[str]]:
    values = {field.name: record.execution[field.name] for field in fields(Execution) if field.name in record.execution}
    not_applied = []
    if values["device"] not in available_devices():
        not_applied.append(f"device: {values['device']} is not on this machine; cpu is used")
        values["device"] = "cpu"
    return Execution(**values), not_applied
