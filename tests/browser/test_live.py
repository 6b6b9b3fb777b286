"""optuna-dashboard on a search whose workers die: each trial once, and running only those that a worker runs."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import dashboard
from tests.faults.search import (
    check_complete,
    kill_all,
    slow_metric,
    start,
    study_config,
    training_workers,
    wait_for_end,
    wait_until,
    worker_statuses,
    write_command,
    write_study_inputs,
)

pytestmark = pytest.mark.browser

TRIALS, EPOCHS = 8, 8
STATES = ("Complete", "Pruned", "Running", "Waiting", "Fail")


@pytest.fixture
def home(_home: None) -> Iterator[Path]:
    home = Path(os.environ["HPO_HOME"])
    yield home
    kill_all(home)


def shown(page: Any) -> dict[int, str]:
    """Return the trials in the dashboard's list and their states."""
    lines = page.locator("body").inner_text().splitlines()
    found: dict[int, str] = {}
    for index, line in enumerate(lines[:-1]):
        name, _, number = line.strip().partition(" ")
        if name == "Trial" and number.isdigit() and lines[index + 1].strip() in STATES:
            assert int(number) not in found, f"trial {number} is shown twice"
            found[int(number)] = lines[index + 1].strip()
    return found


def test_no_ghost_trials_while_workers_die(home: Path, tmp_path: Path, page: Any) -> None:
    metric, slow = slow_metric(tmp_path)
    study = study_config(write_study_inputs(tmp_path), trials=TRIALS, epochs=EPOCHS, workers=4, metric=metric)
    study["search_space"] |= {"batch_size": 64}
    search = start(write_command(tmp_path, study))
    wait_until(lambda: len(training_workers(home, "search")) == 4)
    with dashboard() as address:
        page.goto(f"{address}/dashboard/studies/1/trials")

        def agree() -> bool:
            """Return whether exactly the trials of living workers are shown as running."""
            page.reload()
            page.get_by_text("Trial 0", exact=False).first.wait_for()
            held = {worker.trial for worker in worker_statuses(home) if worker.phase == "search"} - {None}
            return {number for number, state in shown(page).items() if state == "Running"} == held != set()

        wait_until(agree)
        for number in (signal.SIGKILL, signal.SIGTERM):
            victim = wait_until(lambda: training_workers(home, "search"))[0]
            os.kill(victim.pid, number)
            wait_until(lambda pid=victim.pid: pid not in [worker.pid for worker in worker_statuses(home)])
            wait_until(agree)
        slow.unlink()
        code, output = wait_for_end(search)
        assert code == 0, output
        trials = check_complete(home, trials=TRIALS, rungs=EPOCHS).trials
        page.reload()
        page.get_by_text(f"{TRIALS} Trials").wait_for()
        found = wait_until(lambda: shown(page))  # those that fit into the window
        assert found.items() <= dict.fromkeys(range(TRIALS), "Complete").items()
        resumed = next(trial for trial in trials if trial.user_attrs["attempt"] == 2)
        page.goto(f"{address}/dashboard/studies/1/trials?numbers={resumed.number}")
        page.get_by_text(f"worker {resumed.user_attrs['worker']}").wait_for()
        page.get_by_text("attempt 2", exact=True).wait_for()
