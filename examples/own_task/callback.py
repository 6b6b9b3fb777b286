"""A callback of your own: a study names it as `callbacks: [./callback.py]`. It logs every report as a line of JSON."""

import json
from pathlib import Path

import hpo
from hpo.config.trial_params import Report
from hpo.workflow.callbacks import TrialInfo

LOG = Path(__file__).with_name("reports.jsonl")


class LogReports(hpo.Callback):
    """Appends to a file beside this one, from every worker."""

    def on_report(self, trial: TrialInfo, report: Report) -> None:
        line = {"study": trial.study, "trial": trial.number, "attempt": trial.attempt, "epoch": report.epoch}
        with LOG.open("a") as file:
            file.write(json.dumps({**line, "value": report.value}) + "\n")
