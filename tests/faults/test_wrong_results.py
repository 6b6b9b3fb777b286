"""Wrong results are never used: values that are not finite, trials of another search, results of others."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import hpo
from hpo.core.paths import named_folder
from hpo.errors import StudyError
from hpo.storage.lease import Worker
from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import TrialRecord
from hpo.storage.storage import open_storage
from hpo.workflow.worker import loop
from tests.faults.search import check_complete, study_of, wait_until, write_metric

spawn = multiprocessing.get_context("spawn")


@pytest.fixture
def short_study(study_file: dict[str, Any]) -> dict[str, Any]:
    """The shortest study, run in this process."""
    space = {**study_file["search_space"], "epochs": 1, "batch_size": 256}
    return {**study_file, "search_space": space, "budget": {"max_trials": 3}, "backend": "inline"}


def test_infinity_and_nan_are_never_the_best(short_study: dict[str, Any], tmp_path: Path) -> None:
    fault = "for value in (float('inf'), float('nan')):\n    if once(str(value)):\n        return {'right': value}"
    result = hpo.run({**short_study, "metric": str(write_metric(tmp_path, fault))})
    states = [trial.state for trial in result.study.trials]
    assert states == [TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE]
    for trial, value in zip(result.study.trials, ("inf", "nan"), strict=False):
        assert trial.intermediate_values == {} and f"the metric became {value}" in trial.user_attrs["failure"]
    assert result.winner.trial == 2 and 0 <= result.study.best_value <= 1


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"metric": "loss"}, "metric: accuracy before, loss now"),
        ({"seed": 7}, "seed: 0 before, 7 now"),
        ({"search_space": {"learning_rate": {"low": 1e-3, "high": 1.0}}}, "search_space.learning_rate"),
    ],
)
def test_another_search_of_the_same_name_raises_and_changes_nothing(
    short_study: dict[str, Any], changed: dict[str, Any], difference: str, finished: Path, home: Path
) -> None:
    before = dump(f"sqlite:///{finished}")
    with pytest.raises(StudyError) as raised:
        hpo.run({**short_study, **changed}, storage=f"sqlite:///{finished}")
    assert difference in str(raised.value) and "--name" in str(raised.value)
    assert "warm_start: [faulty]" in str(raised.value)
    assert dump(f"sqlite:///{finished}") == before


def test_wider_search_copies_the_finished_trials(short_study: dict[str, Any], finished: Path) -> None:
    url = f"sqlite:///{finished}"
    wider = {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "epochs": 1, "batch_size": [128, 256]}
    new = {**short_study, "name": "wider", "search_space": wider, "warm_start": "faulty", "budget": {"max_trials": 1}}
    result = hpo.run(new, storage=url)
    first, other = result.study.trials
    assert first.user_attrs["copied_from"] == "faulty #0" and "copied_from" not in other.user_attrs
    assert first.value == first.intermediate_values[1] and TrialRecord.of(first).curve
    with pytest.raises(StudyError, match="metric: accuracy before, loss now"):
        hpo.run({**new, "name": "other", "metric": "loss", "sampler": "tpe"}, storage=url)
    transferred = hpo.run(
        {**new, "name": "other", "metric": "loss"}, storage=url
    ).study  # the default sampler transfers ranks
    assert (
        StudyRecord.of(transferred).source_studies == ("faulty",)
        and "copied_from" not in transferred.trials[0].user_attrs
    )
    with pytest.raises(StudyError, match=r"no study 'fauly'.*Did you mean 'faulty'"):
        hpo.run({**new, "name": "third", "warm_start": ["fauly"]}, storage=url)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, study_inputs: Path) -> Path:
    """The database of a completed study."""
    folder = tmp_path_factory.mktemp("finished")
    rate = {"low": 1e-3, "high": 1e-2, "log": True}
    study = {
        "name": "faulty",
        "data": str(study_inputs / "reviews"),
        "models": [str(study_inputs / "bert")],
        "search_space": {"learning_rate": rate, "epochs": 1, "batch_size": 256},
        "budget": {"max_trials": 1},
        "confirm": {"top": 1, "seeds": 1},
        "backend": "inline",
        "devices": "cpu",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_HOME", str(folder / "home"))
        hpo.run(study, storage=f"sqlite:///{folder / 'hpo.db'}")
    return folder / "hpo.db"


def test_worker_of_a_finished_study_does_not_reset_it(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phases: list[str] = []
    monkeypatch.setattr(loop, "set_phase", lambda study, phase: phases.append(phase))
    url = f"sqlite:///{finished}"
    before = dump(url)
    loop.WorkerLoop(loop.WorkerSpec("faulty", url, "cpu", 1, 1)).work()
    assert phases == ["finished"] and dump(url) == before


def dump(url: str) -> str:
    storage = open_storage(url)
    study = optuna.load_study(study_name="faulty", storage=storage)
    content = json.dumps(
        [StudyRecord.of(study).attributes(), study.metric_names, [str(trial) for trial in study.trials]]
    )
    storage.engine.dispose()
    return content


def test_result_of_the_dashboard_is_kept_and_the_worker_continues(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    storage = open_storage(database)
    study = optuna.load_study(study_name="study", storage=storage)
    worker = Worker(storage, study, "cpu")
    trial = worker.claim(study)
    assert trial is not None
    trial.report(0.4, 1)
    post = dashboard(open_storage(database))
    assert post(f"/api/trials/{trial._trial_id}/tell", {"state": "Complete", "values": [0.25]}) == "204 No Content"
    worker.finish(study, trial, TrialState.COMPLETE, 0.9)
    assert study.trials[0].value == 0.25 and study.trials[0].intermediate_values == {1: 0.4}
    assert "set to COMPLETE by another process" in caplog.text
    second = worker.claim(study)
    assert second is not None and second.number == 1
    worker.close()
    storage.engine.dispose()


def dashboard(storage: Any) -> Callable[[str, Any], str]:
    """Return a function that posts JSON to optuna-dashboard's application and returns the response's status."""
    import io

    from optuna_dashboard import wsgi

    application: Any = wsgi(storage)

    def post(path: str, content: Any) -> str:
        body = json.dumps(content).encode()
        request = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": path,
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
            "wsgi.url_scheme": "http",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "0",
        }
        statuses: list[str] = []
        list(application(request, lambda status, headers, error=None: statuses.append(status)))
        return statuses[0]

    return post


def run_with_many_checkpoints(study: dict[str, Any]) -> None:
    from hpo.workflow.context import StudyContext

    plan = StudyContext.plan
    StudyContext.plan = lambda *args, **kwargs: replace(plan(*args, **kwargs), checkpoint_seconds=0.1)  # type: ignore[method-assign]
    hpo.run(study)


@pytest.mark.slow
def test_curve_of_a_killed_trial_is_complete(study_file: dict[str, Any], home: Path) -> None:
    def past_a_rung() -> bool:
        for file in (named_folder("faulty") / "checkpoints").glob("*/checkpoint-*/state.json"):
            with suppress(OSError):  # replaced by the next one
                return bool(json.loads(file.read_text())["progress"]["rung"] >= 2)
        return False

    study = {**study_file, "backend": "inline", "budget": {"max_trials": 1}}
    process = spawn.Process(target=run_with_many_checkpoints, args=(study,))
    process.start()
    wait_until(past_a_rung)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    killed = study_of(home)
    assert killed is not None and not TrialRecord.of(killed.trials[0]).curve
    hpo.run(study)
    resumed = check_complete(home, trials=1)
    assert resumed.trials[0].user_attrs["attempt"] == 2
    assert None not in TrialRecord.of(resumed.trials[0]).curve[0].model_dump().values()
