"""Callbacks: which hooks run, in which process, with which arguments, and that an error in one costs no trial."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

import hpo
from hpo.config.trial_params import Report, TrialParams
from hpo.errors import ConfigError
from hpo.storage.records.study import StudyRecord
from hpo.workflow.callbacks import Callback, CallbackList, TrialInfo

FILE = '''
import json, os
from pathlib import Path

import hpo


class Log(hpo.Callback):
    """Writes a line for each hook beside this file."""

    def write(self, hook, *values):
        with (Path(__file__).parent / "log.jsonl").open("a") as file:
            file.write(json.dumps([hook, os.getpid(), *values]) + "\\n")

    def on_study_begin(self, study):
        self.write("study begins", study.study_name)

    def on_study_end(self, study, result):
        self.write("study ends", result is not None)

    def on_trial_begin(self, trial):
        self.write("trial begins", trial.study, trial.stage, trial.number, trial.attempt, trial.params.model)

    def on_report(self, trial, report):
        self.write("report", trial.study, trial.number, report.step)

    def on_trial_end(self, trial, state, value):
        self.write("trial ends", trial.study, trial.number, state, value)
'''


def info(number: int = 0) -> TrialInfo:
    return TrialInfo("study", "search", number, 1, TrialParams(model="tiny"), "cpu")


class Failing(Callback):
    error: Callable[[], BaseException] = lambda: ValueError("no")

    def on_report(self, trial: TrialInfo, report: Report) -> None:
        raise type(self).error()


REPORT = Report(step=1, epoch=1, value=0.5, metrics={}, train_loss=1, seconds={}, peak_memory_mb=1)


def test_an_exception_is_reported_once_for_each_hook_with_its_line(caplog: pytest.LogCaptureFixture) -> None:
    warnings: list[str] = []
    callbacks = CallbackList([Failing(), Failing()], warnings.append)
    for _ in range(3):
        callbacks.on_report(info(), REPORT)
    assert len(warnings) == 2
    assert warnings[0].startswith(f"callback Failing.on_report failed: ValueError: no ({__file__}:")
    assert "Traceback" in caplog.text and "ValueError: no" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exit_is_not_held_back(error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Failing, "error", error)
    with pytest.raises(error):
        CallbackList([Failing()], print).on_report(info(), REPORT)


def test_the_end_is_that_of_the_trial_that_began() -> None:
    calls: list[Any] = []

    class Ends(Callback):
        def on_trial_end(self, trial: TrialInfo, state: str, value: float | None) -> None:
            calls.append((trial.number, state, value))

    callbacks = CallbackList([Ends()], print)
    callbacks.on_trial_end("failed", None)  # before it began
    callbacks.on_report(info(1), None)
    callbacks.on_trial_end("complete", 0.5)
    callbacks.on_report(info(2), None)
    callbacks.release()  # interrupted
    callbacks.on_trial_end("failed", None)
    assert calls == [(1, "complete", 0.5)]


def log_of(folder: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def check_log(lines: list[list[Any]], result: hpo.Result) -> None:
    """One begin and one end for each trial of each stage, and the values of the search."""
    assert [line[0] for line in lines[:1]] == ["study begins"] and lines[-1][0] == "study ends" and lines[-1][2]
    begun = [tuple(line[2:5]) for line in lines if line[0] == "trial begins"]
    assert {stage for _, stage, _ in begun} == {"search", "confirm", "retrain"}
    ended = {(line[2], line[3]): line[4:] for line in lines if line[0] == "trial ends"}
    assert sorted((study, number) for study, _, number in begun) == sorted(ended)
    for trial in result.study.trials:
        state, value = ended[("reviews", trial.number)]
        assert state == trial.state.name.lower().replace("fail", "failed")
        assert value == (trial.value if state == "complete" else None)
        steps = [line[4] for line in lines if line[0] == "report" and line[2:4] == ["reviews", trial.number]]
        assert steps == sorted(trial.intermediate_values)


def test_hooks_of_a_file_run_in_this_process_inline(study: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "log.py").write_text(FILE)
    result = hpo.run(study | {"callbacks": [str(tmp_path / "log.py")], "budget": {"max_trials": 3}})
    check_log(log_of(tmp_path), result)
    assert {line[1] for line in log_of(tmp_path)} == {os.getpid()}


def test_hooks_run_in_the_workers_and_the_objects_reach_them(
    study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.py").write_text(FILE)
    study |= {"backend": "local", "workers": 2, "callbacks": str(tmp_path / "log.py"), "budget": {"max_trials": 4}}
    sampler, pruner = optuna.samplers.RandomSampler(seed=3), optuna.pruners.NopPruner()
    result = hpo.run(study, sampler=sampler, pruner=pruner, callbacks=[Failing()])
    lines = log_of(tmp_path)
    check_log(lines, result)
    assert {line[1] for line in lines if line[0].startswith("study")} == {os.getpid()}
    assert os.getpid() not in {line[1] for line in lines if not line[0].startswith("study")}
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in result.study.trials)
    warnings = hpo.status("reviews").warnings
    assert warnings and all("Failing.on_report failed: ValueError: no" in warning for warning in warnings)
    config = StudyRecord.of(result.study).config
    assert config["sampler"] == {"name": "python:RandomSampler"} and config["callbacks"][1] == "python:Failing"


def test_worker_without_the_objects_names_what_is_missing(study: dict[str, Any], tmp_path: Path) -> None:
    from hpo.workflow.worker.loop import WorkerLoop, WorkerSpec

    hpo.run(study | {"budget": {"max_trials": 1}}, sampler=optuna.samplers.RandomSampler(), callbacks=[Callback()])
    loop = WorkerLoop(WorkerSpec("reviews", None, "cpu", 1, 1))
    with pytest.raises(ConfigError, match="started from Python with a RandomSampler object"):
        loop.work()
    assert "the callbacks Callback were passed to hpo.run" in hpo.status("reviews").warnings[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"callbacks": [Callback]}, "callbacks: pass instances of hpo.Callback, not the class Callback"),
        ({"sampler": "tpe"}, "sampler: pass an instance of an Optuna sampler, not 'tpe'"),
        ({"pruner": optuna.samplers.RandomSampler()}, "pruner: pass an instance of an Optuna pruner"),
    ],
)
def test_an_object_of_another_type_raises(given: dict[str, Any], message: str, study: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=message):
        hpo.run(study, **given)


class Unpicklable(Callback):
    def __reduce__(self) -> Any:
        raise TypeError("a socket")


def test_an_object_that_cannot_be_pickled_raises(study: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"callbacks: the object cannot be pickled.*TypeError: a socket"):
        hpo.run(study | {"backend": "local"}, callbacks=[Unpicklable()])


def test_a_missing_file_raises_before_anything_runs(study: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"callbacks: there is no file .*none\.py"):
        hpo.run(study | {"callbacks": [str(tmp_path / "none.py")]})
