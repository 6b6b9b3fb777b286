"""A whole search on a database server: a worker is killed, the server crashes, and nothing is lost."""

import subprocess
import time
from pathlib import Path

import pytest

from tests import servers
from tests.workflow.test_faults import check_invariants, command, home, material, mid_trial, wait_until, workers_of

pytestmark = pytest.mark.server
__all__ = ["command", "home", "material"]


@pytest.mark.parametrize("name", sorted(servers.SERVERS))
def test_a_killed_worker_and_a_crashed_server(
    name: str, command: list[str], home: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: servers.Server = request.getfixturevalue(name)
    monkeypatch.setenv("HPO_STORAGE", server.url())
    search = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until(lambda: mid_trial(home))
    workers_of(home)[0].kill()
    server.crash()
    time.sleep(5)
    server.start()
    output, _ = search.communicate(timeout=300)
    assert search.returncode == 0, output
    assert "Traceback" not in output and servers.PASSWORD not in output
    study = check_invariants(home)
    assert any(trial.user_attrs["attempt"] == 2 for trial in study.trials)
