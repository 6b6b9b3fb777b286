"""Studies of one name in real processes: started at once, or after another one was killed, in another database."""

from pathlib import Path
from typing import Any

import pytest

from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import TrialRecord
from tests.faults.search import (
    check_complete,
    is_mid_trial,
    run_to_completion,
    start,
    study_of,
    wait_for_end,
    wait_until,
    worker_processes,
    write_command,
)

pytestmark = pytest.mark.slow


def with_rates(study: dict[str, Any], folder: Path, low: float, high: float, **changed: Any) -> list[str]:
    """The command that runs the study with these learning rates."""
    folder.mkdir()
    space = {**study["search_space"], "learning_rate": {"low": low, "high": high, "log": True}, "epochs": 1}
    return write_command(folder, {**study, "search_space": space, "workers": 1, **changed})


def test_one_of_two_studies_started_at_once_is_refused(study_file: dict[str, Any], tmp_path: Path, home: Path) -> None:
    commands = [
        with_rates(study_file, tmp_path / "high", 1e-3, 1e-2),
        with_rates(study_file, tmp_path / "low", 1e-6, 1e-5),
    ]
    ends = [wait_for_end(search) for search in [start(command) for command in commands]]
    assert sorted(code for code, _ in ends) == [0, 2], ends
    refused = next(output for code, output in ends if code == 2)
    assert "exists and was created from something else" in refused and "Traceback" not in refused
    study = check_complete(home, rungs=1)
    rates = [trial.params["learning_rate"] for trial in study.trials]
    assert all(rate >= 1e-3 for rate in rates) or all(rate <= 1e-5 for rate in rates)


def test_one_study_started_twice_at_once_is_one_search(study_file: dict[str, Any], tmp_path: Path, home: Path) -> None:
    command = with_rates(study_file, tmp_path / "same", 1e-3, 1e-2)
    for code, output in [wait_for_end(search) for search in [start(command), start(command)]]:
        assert code == 0, output
    check_complete(home, rungs=1)


def test_study_in_another_database_does_not_resume_a_killed_one(
    study_file: dict[str, Any], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {**study_file["search_space"], "learning_rate": 1e-2, "epochs": 16}
    search = start(write_command(tmp_path, {**study_file, "search_space": good, "workers": 1}))
    wait_until(lambda: is_mid_trial(home))
    wait_until(lambda: list(home.glob("runs/*/checkpoints/*/checkpoint-*/state.json")))
    search.kill()
    wait_for_end(search)
    wait_until(lambda: not worker_processes(home))
    first = study_of(home)
    assert first is not None
    killed = StudyRecord.of(first).identity
    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{tmp_path / 'other.db'}")
    run_to_completion(with_rates(study_file, tmp_path / "useless", 1e-9, 2e-9, budget={"max_trials": 1}))
    study = study_of(home)
    assert study is not None and StudyRecord.of(study).identity != killed
    assert TrialRecord.of(study.trials[0]).attempt == 1
    assert study.trials[0].value < 0.9  # of random weights: those of the killed study are right about nearly all rows
