"""A whole search on a database server: a worker is killed, the server crashes, and nothing is lost, nothing told."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages._rdb import models
from sqlalchemy import select

from hpo.core.paths import run_folder
from hpo.study.storage import open_storage
from tests import servers
from tests.faults.search import check_whole, command_for, end_of, hpo, mid_trial, start, wait_until, workers_of

pytestmark = pytest.mark.server


@pytest.mark.parametrize("name", sorted(servers.SERVERS))
def test_a_killed_worker_and_a_crashed_server(
    name: str, command: list[str], home: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: servers.Server = request.getfixturevalue(name)
    monkeypatch.setenv("HPO_STORAGE", server.url())
    search = start(command)
    wait_until(lambda: mid_trial(home))
    workers_of(home)[0].kill()
    server.crash()
    wait_until(cut_off)
    server.start()
    code, output = end_of(search)
    assert code == 0, output
    assert "Traceback" not in output
    study = check_whole(home)
    assert any(trial.user_attrs["attempt"] == 2 for trial in study.trials)
    assert "The workers go on, and keep their results" in output
    check_told_nothing(home, output + hpo("status", "faulty").stdout + hpo("report", "faulty").stdout)


def cut_off() -> bool:
    """Whether a worker noticed that the server is away: by its beat, or by what it asked."""
    logs = [log.read_text() for log in run_folder("faulty").glob("logs/*")]
    return any("goes on trying" in log or "the database is away" in log for log in logs)


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


def test_hostile_names_go_through_a_whole_study(
    study_file: dict[str, Any],
    tmp_path: Path,
    home: Path,
    postgresql: servers.Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HPO_STORAGE", postgresql.url())
    name = "=cmd|' /C calc'!A0 <script>alert(1)</script> {0} %s"
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
