"""A whole search on a database server: a worker is killed, the server crashes, and nothing is lost, nothing told."""

from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.storages._rdb import models
from sqlalchemy import select

from hpo.core.paths import run_folder
from hpo.storage.status import WorkerStatus
from hpo.storage.storage import open_storage
from tests import servers
from tests.faults.search import (
    PATIENCE,
    at_work,
    check_whole,
    command_for,
    end_of,
    fill,
    hpo,
    mid_trial,
    run_to_the_end,
    slow_metric,
    start,
    study_on,
    wait_until,
    workers_of,
)

pytestmark = pytest.mark.server

EPOCHS = 8


@pytest.mark.parametrize("name", sorted(servers.SERVERS))
def test_a_killed_and_a_preempted_worker_and_a_crashed_server(
    name: str,
    material: Path,
    tmp_path: Path,
    home: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server: servers.Server = request.getfixturevalue(name)
    monkeypatch.setenv("HPO_STORAGE", server.url())
    metric, slow = slow_metric(tmp_path)
    study = study_on(material, epochs=EPOCHS, metric=metric)
    study["search_space"] |= {"batch_size": 64}
    search = start(command_for(tmp_path, study))
    killed, left = wait_until(lambda: early(home, 2))
    psutil.Process(killed.pid).kill()
    # Who is preempted leaves for good, and while the server is away nobody begins: a third must be there to notice it.
    wait_until(lambda: {worker.pid for worker in at_work(home, "search")} - {killed.pid, left.pid})
    preempted = wait_until(lambda: [worker for worker in early(home) if worker.pid == left.pid])[0]
    process = psutil.Process(preempted.pid)
    process.terminate()
    process.wait(timeout=PATIENCE)
    server.crash()
    wait_until(cut_off)
    slow.unlink()
    server.start()
    code, output = end_of(search)
    assert code == 0, output
    assert "Traceback" not in output
    trials = check_whole(home, rungs=EPOCHS).trials
    assert all(trials[worker.trial].user_attrs["attempt"] > 1 for worker in (killed, preempted))
    assert "keep their results" in output
    check_told_nothing(home, output + hpo("status", "faulty").stdout + hpo("report", "faulty").stdout)


def early(home: Path, count: int = 1) -> list[WorkerStatus]:
    """The workers that are past a rung of a trial and have half of it before them, when they are `count` or more."""
    found = [worker for worker in at_work(home, "search") if (worker.epoch or 0) <= EPOCHS / 2]
    return found if len(found) >= count else []


@pytest.mark.parametrize(("name", "small_disk"), [("postgresql", 128)], indirect=["small_disk"])
def test_a_server_whose_disk_is_full_pauses_the_search_and_it_goes_on(
    name: str, command: list[str], home: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log has room in the 16 MB that it begins with; its tables, empty at first, grow by 8 kB at a time."""
    server = servers.start(name, small_disk)
    try:
        monkeypatch.setenv("HPO_STORAGE", server.url())
        search = start(command)
        wait_until(lambda: mid_trial(home))
        for statement in ("SELECT pg_switch_wal()", "CHECKPOINT"):
            server.execute(statement)
        fill(small_disk / "ballast")
        code, output = end_of(search)
        assert code == 3, output
        assert "No space left on device" in output and "Traceback" not in output
        assert not workers_of(home)
        (small_disk / "ballast").unlink()
        run_to_the_end(command)
        check_whole(home)
    finally:
        server.remove()


def cut_off() -> bool:
    """Whether a worker noticed that the server is away: by its beat, or by what it asked."""
    logs = [log.read_text() for log in run_folder("faulty").glob("logs/*")]
    return any("cannot send its heartbeat" in log or "the database is unavailable" in log for log in logs)


def check_told_nothing(home: Path, output: str) -> None:
    """The password is in no output, no file, no attribute: not even in what was logged while the server was away."""
    secrets = [servers.PASSWORD, servers.PASSWORD.replace("@", "%40")]
    texts = [output.encode(), *(path.read_bytes() for path in home.rglob("*") if path.is_file())]
    storage = open_storage()
    with storage.reading() as session:
        for kind in (models.StudyUserAttributeModel, models.StudySystemAttributeModel, models.TrialUserAttributeModel):
            texts += [str(value).encode() for value in session.scalars(select(kind.value_json))]
    storage.engine.dispose()
    assert not any(secret.encode() in text for secret in secrets for text in texts)


@pytest.mark.parametrize("database", sorted(servers.SERVERS))
def test_hostile_names_go_through_a_whole_study(
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
    search = start(command_for(tmp_path, study))
    code, output = end_of(search)
    assert code == 0, output
    told = output + hpo("status", name).stdout + hpo("best", name).stdout
    assert name in told and servers.PASSWORD not in told
    page = (run_folder(name) / "report.html").read_text()
    assert "<script>alert" not in page and "<img src=x" not in page
    assert not [line for line in (run_folder(name) / "trials.csv").read_text().splitlines() if line.startswith("=")]
    assert run_folder(name).parent == home / "runs"
    storage = open_storage()
    assert name in optuna.get_all_study_names(storage=storage)
    storage.engine.dispose()
