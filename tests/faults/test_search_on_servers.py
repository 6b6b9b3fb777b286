"""A search on a database server that crashes, with a killed worker: nothing is lost, no password is shown."""

from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.storages._rdb import models
from sqlalchemy import select

from hpo.core.paths import named_folder
from hpo.storage.status import WorkerStatus
from hpo.storage.storage import open_storage
from tests import servers
from tests.faults.search import (
    TIMEOUT,
    check_complete,
    fill,
    hpo,
    is_mid_trial,
    run_to_completion,
    slow_metric,
    start,
    study_config,
    training_workers,
    wait_for_end,
    wait_until,
    worker_processes,
    write_command,
)

pytestmark = pytest.mark.server

EPOCHS = 8


@pytest.mark.parametrize("name", sorted(servers.SERVERS))
def test_killed_and_preempted_worker_and_crashed_server(
    name: str,
    study_inputs: Path,
    tmp_path: Path,
    home: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server: servers.Server = request.getfixturevalue(name)
    monkeypatch.setenv("HPO_STORAGE", server.url())
    metric, slow = slow_metric(tmp_path)
    study = study_config(study_inputs, epochs=EPOCHS, metric=metric)
    study["search_space"] |= {"batch_size": 64}
    search = start(write_command(tmp_path, study))
    killed, other = wait_until(lambda: in_first_half(home, 2))
    psutil.Process(killed.pid).kill()
    # The preempted worker ends, and no worker starts during the outage: a third must run to detect it.
    wait_until(lambda: {worker.pid for worker in training_workers(home, "search")} - {killed.pid, other.pid})
    preempted = wait_until(lambda: [worker for worker in in_first_half(home) if worker.pid == other.pid])[0]
    process = psutil.Process(preempted.pid)
    process.terminate()
    process.wait(timeout=TIMEOUT)
    server.crash()
    wait_until(outage_is_detected)
    slow.unlink()
    server.start()
    code, output = wait_for_end(search)
    assert code == 0, output
    assert "Traceback" not in output
    trials = check_complete(home, rungs=EPOCHS).trials
    assert all(trials[worker.trial].user_attrs["attempt"] > 1 for worker in (killed, preempted))
    assert "keep their results" in output
    check_password_is_hidden(home, output + hpo("status", "faulty").stdout + hpo("report", "faulty").stdout)


def in_first_half(home: Path, count: int = 1) -> list[WorkerStatus]:
    """The workers in the first half of a trial after its first rung, if there are `count` or more."""
    found = [worker for worker in training_workers(home, "search") if (worker.epoch or 0) <= EPOCHS / 2]
    return found if len(found) >= count else []


@pytest.mark.parametrize(("name", "small_disk"), [("postgresql", 128)], indirect=["small_disk"])
def test_full_disk_of_a_server_stops_the_search_and_the_same_command_resumes(
    name: str, command: list[str], home: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has its initial 16 MB; the tables are empty and grow by 8 kB at a time."""
    server = servers.start(name, small_disk)
    try:
        monkeypatch.setenv("HPO_STORAGE", server.url())
        search = start(command)
        wait_until(lambda: is_mid_trial(home))
        for statement in ("SELECT pg_switch_wal()", "CHECKPOINT"):
            server.execute(statement)
        fill(small_disk / "ballast")
        code, output = wait_for_end(search)
        assert code == 3, output
        assert "No space left on device" in output and "Traceback" not in output
        assert not worker_processes(home)
        (small_disk / "ballast").unlink()
        run_to_completion(command)
        check_complete(home)
    finally:
        server.remove()


def outage_is_detected() -> bool:
    """Return whether a worker detected the outage, by a heartbeat or by another call."""
    logs = [log.read_text() for log in named_folder("faulty").glob("logs/*")]
    return any("cannot send its heartbeat" in log or "the database is unavailable" in log for log in logs)


def check_password_is_hidden(home: Path, output: str) -> None:
    """Assert that the password is in no output, file or attribute, not even in the logs of the outage."""
    secrets = [servers.PASSWORD, servers.PASSWORD.replace("@", "%40")]
    texts = [output.encode(), *(path.read_bytes() for path in home.rglob("*") if path.is_file())]
    storage = open_storage()
    with storage.reading() as session:
        for kind in (models.StudyUserAttributeModel, models.StudySystemAttributeModel, models.TrialUserAttributeModel):
            texts += [str(value).encode() for value in session.scalars(select(kind.value_json))]
    storage.engine.dispose()
    assert not any(secret.encode() in text for secret in secrets for text in texts)


@pytest.mark.parametrize("database", sorted(servers.SERVERS))
def test_study_with_hostile_names(
    database: str,
    study_file: dict[str, Any],
    tmp_path: Path,
    home: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server: servers.Server = request.getfixturevalue(database)
    monkeypatch.setenv("HPO_STORAGE", server.url())
    name = "=cmd|' /C calc'!A0 <script>alert(1)</script> {0} %s \N{FIRE}"
    data = tmp_path / "data"
    data.mkdir()
    for file in Path(study_file["data"]).glob("*.csv"):
        text = file.read_text().replace(",positive", ',"<img src=x onerror=alert(2)>"').replace(",negative", ",=1+1")
        (data / file.name).write_text("".join(text.splitlines(keepends=True)[:400]))
    space = {**study_file["search_space"], "epochs": 1}
    study = {**study_file, "name": name, "data": str(data), "search_space": space, "budget": {"max_trials": 2}}
    search = start(write_command(tmp_path, study))
    code, output = wait_for_end(search)
    assert code == 0, output
    shown = output + hpo("status", name).stdout + hpo("best", name).stdout
    assert name in shown and servers.PASSWORD not in shown
    page = (named_folder(name) / "report.html").read_text()
    assert "<script>alert" not in page and "<img src=x" not in page
    assert not [line for line in (named_folder(name) / "trials.csv").read_text().splitlines() if line.startswith("=")]
    assert named_folder(name).parent == home / "runs"
    storage = open_storage()
    assert name in optuna.get_all_study_names(storage=storage)
    storage.engine.dispose()
