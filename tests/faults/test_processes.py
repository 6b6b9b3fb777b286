"""Faults of one process of a search: a device error, no memory, a full disk. The other processes continue."""

import sqlite3
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from tests.faults.search import (
    check_complete,
    fill,
    is_mid_trial,
    run_to_completion,
    start,
    study_of,
    wait_for_end,
    wait_until,
    worker_processes,
    worker_statuses,
    write_command,
    write_metric,
)
from tests.small_models import save_bert, save_model

pytestmark = pytest.mark.slow


def quick(study: dict[str, Any]) -> dict[str, Any]:
    """The same search with fewer steps, for faults that need no timing."""
    return {**study, "search_space": {**study["search_space"], "batch_size": 64}}


def results(study: optuna.Study | None) -> dict[TrialState, list[int]]:
    assert study is not None
    return {
        state: [trial.number for trial in study.get_trials(states=(state,))]
        for state in TrialState
        if study.get_trials(states=(state,))
    }


def test_device_error_replaces_the_process_and_keeps_the_trial(
    study_file: dict[str, Any], tmp_path: Path, home: Path
) -> None:
    """Torch's own error, raised once. The trial is resumed in a new process."""
    fault = "import torch\nif once('device'):\n    raise torch.AcceleratorError('CUDA error: misaligned address')"
    command = write_command(tmp_path, {**quick(study_file), "metric": str(write_metric(tmp_path, fault))})
    output = run_to_completion(command)
    assert "CUDA error: misaligned address" in output and "a new one replaces it" in output
    study = check_complete(home)
    assert sorted(trial.user_attrs["attempt"] for trial in study.trials) == [1, 1, 1, 2]


def test_damaged_model_is_named_and_the_same_command_resumes(
    study_file: dict[str, Any], tmp_path: Path, home: Path
) -> None:
    """The weights are replaced by their first half before a worker reads them."""
    save_bert(tmp_path / "second", layers=1)
    weights = tmp_path / "second" / "model.safetensors"
    models = [*study_file["models"], str(tmp_path / "second")]
    first = [{"learning_rate": 2e-3}]  # for each model: trial 1 uses the second
    study_file |= {"models": models, "first_trials": first, "rank": False, "workers": 1, "budget": {"max_trials": 2}}
    command = write_command(tmp_path, study_file)
    search = start(command)
    wait_until(lambda: is_mid_trial(home))
    content = weights.read_bytes()
    weights.with_suffix(".half").write_bytes(content[: len(content) // 2])
    weights.with_suffix(".half").rename(weights)
    code, output = wait_for_end(search)
    assert code == 2, output
    assert "second: its weights cannot be read" in output and "The file is damaged" in output
    assert "Traceback" not in output
    assert results(study_of(home)) == {TrialState.COMPLETE: [0], TrialState.WAITING: [1]}
    weights.write_bytes(content)
    run_to_completion(command)
    study = check_complete(home, trials=2)
    assert [trial.user_attrs["attempt"] for trial in study.trials] == [1, 2]


@pytest.mark.gpu
def test_device_side_assertion(study_file: dict[str, Any], tmp_path: Path, home: Path) -> None:
    fault = (
        "import torch\nif once('device'):\n    torch.zeros(1, device='cuda')[torch.tensor([9], device='cuda')].cpu()"
    )
    study = {**study_file, "metric": str(write_metric(tmp_path, fault)), "devices": "cuda"}
    assert "a new one replaces it" in run_to_completion(write_command(tmp_path, study))
    check_complete(home)


def test_trial_that_kills_its_workers_fails(command: list[str], home: Path) -> None:
    """SIGKILL, as the kernel sends without free memory, to every worker of trial 1 until it fails."""

    def holder() -> int | None:
        return next((w.pid for w in worker_statuses(home) if w.trial == 1 and w.phase == "search"), None)

    search = start(command)
    for _ in range(3):
        psutil.Process(wait_until(holder)).kill()
        wait_until(lambda: holder() is None)
    code, output = wait_for_end(search)
    assert code == 0, output
    study = study_of(home)
    assert results(study) == {TrialState.COMPLETE: [0, 2, 3], TrialState.FAIL: [1]}
    assert study is not None and "3 workers died on it" in study.trials[1].user_attrs["failure"]
    assert "for lack of memory" in output
    assert not worker_processes(home)


def test_model_above_the_memory_limit_fails_its_trials_only(
    study_file: dict[str, Any], tmp_path: Path, home: Path
) -> None:
    """RLIMIT_AS is 900 MB above a worker's size at its start.

    Trials of the small model use 480 MB of address space, those of the large one 1.5 GB before their first step.
    """
    save_model(tmp_path / "large", "bert", layers=1, intermediate_size=4_000_000)
    metric = write_metric(tmp_path, "pass")
    limit = (
        "\nimport resource, sys, psutil\n"
        "free = resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY\n"
        "if free and any('worker.process' in part for part in sys.orig_argv):\n"
        "    most = psutil.Process().memory_info().vms + 900 * 2**20\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
    )
    metric.write_text(metric.read_text() + limit)
    models = [*study_file["models"], str(tmp_path / "large")]
    first = [{"learning_rate": 2e-3}]
    study = {**quick(study_file), "metric": str(metric), "models": models, "first_trials": first, "rank": False}
    run_to_completion(write_command(tmp_path, study))
    found = study_of(home)
    assert found is not None and len(found.trials) == 4
    for trial in found.trials:
        if trial.params["model"] == "bert":
            assert trial.state == TrialState.COMPLETE
        else:
            assert trial.state == TrialState.FAIL and trial.user_attrs["failure"].startswith("OutOfMemory")
    assert {trial.params["model"] for trial in found.trials} == {"bert", "large"}


@pytest.mark.parametrize("holds", ["database", "checkpoints"])
def test_full_disk_stops_the_search_and_the_same_command_resumes(
    holds: str, command: list[str], home: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk of 16 MB, because SQLite's log alone grows to 4 MB."""
    database = (small_disk if holds == "database" else home.parent) / "faulty.db"
    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{database}")
    if holds == "checkpoints":
        (home / "runs" / "faulty").mkdir(parents=True)
        (home / "runs" / "faulty" / "checkpoints").symlink_to(small_disk)
    search = start(command)
    wait_until(lambda: is_mid_trial(home))
    ballast = small_disk / "ballast"
    fill(ballast)
    code, output = wait_for_end(search)
    assert code == 3, output
    assert "full" in output and "Traceback" not in output
    assert not worker_processes(home)
    ballast.unlink()
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    run_to_completion(command)
    study = study_of(home)
    assert study is not None and results(study) == {TrialState.COMPLETE: [0, 1, 2, 3]}
