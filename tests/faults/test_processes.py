"""What befalls one process of a search: its device fails, the machine's memory or disk ends. The others live."""

import sqlite3
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from tests.faults.search import (
    check_whole,
    command_for,
    end_of,
    fill,
    mid_trial,
    run_to_the_end,
    start,
    study_of,
    wait_until,
    workers_now,
    workers_of,
    write_metric,
)
from tests.small_models import save_bert, save_model

pytestmark = pytest.mark.slow


def quick(study: dict[str, Any]) -> dict[str, Any]:
    """The same search in fewer steps, where there is no moment to strike at."""
    return {**study, "search_space": {**study["search_space"], "batch_size": 64}}


def results(study: optuna.Study | None) -> dict[TrialState, list[int]]:
    assert study is not None
    return {
        state: [trial.number for trial in study.get_trials(states=(state,))]
        for state in TrialState
        if study.get_trials(states=(state,))
    }


def test_a_sticky_device_error_costs_the_process_and_not_the_trial(
    study_file: dict[str, Any], tmp_path: Path, home: Path
) -> None:
    """The error is torch's own class, raised once: the trial goes on in a new process."""
    fault = "import torch\nif strike('device'):\n    raise torch.AcceleratorError('CUDA error: misaligned address')"
    command = command_for(tmp_path, {**quick(study_file), "metric": str(write_metric(tmp_path, fault))})
    told = run_to_the_end(command)
    assert "CUDA error: misaligned address" in told and "a new one replaces it" in told
    study = check_whole(home)
    assert sorted(trial.user_attrs["attempt"] for trial in study.trials) == [1, 1, 1, 2]


def test_a_model_damaged_in_mid_search_is_named_and_the_same_command_goes_on(
    study_file: dict[str, Any], tmp_path: Path, home: Path
) -> None:
    """Its weights are replaced by the first half of them before a worker has read them."""
    save_bert(tmp_path / "second", layers=1)
    weights = tmp_path / "second" / "model.safetensors"
    models = [*study_file["models"], str(tmp_path / "second")]
    first = [{"learning_rate": 2e-3}]  # tried with each model: the second is for trial 1
    study_file |= {"models": models, "first_trials": first, "rank": False, "workers": 1, "budget": {"max_trials": 2}}
    command = command_for(tmp_path, study_file)
    search = start(command)
    wait_until(lambda: mid_trial(home))
    whole = weights.read_bytes()
    weights.with_suffix(".half").write_bytes(whole[: len(whole) // 2])
    weights.with_suffix(".half").rename(weights)
    code, output = end_of(search)
    assert code == 2, output
    assert "second: its weights cannot be read" in output and "the file is damaged" in output
    assert "Traceback" not in output
    assert results(study_of(home)) == {TrialState.COMPLETE: [0], TrialState.WAITING: [1]}
    weights.write_bytes(whole)
    run_to_the_end(command)
    study = check_whole(home, trials=2)
    assert [trial.user_attrs["attempt"] for trial in study.trials] == [1, 2]


@pytest.mark.gpu
def test_a_real_device_side_assertion(study_file: dict[str, Any], tmp_path: Path, home: Path) -> None:
    fault = (
        "import torch\nif strike('device'):\n    torch.zeros(1, device='cuda')[torch.tensor([9], device='cuda')].cpu()"
    )
    study = {**study_file, "metric": str(write_metric(tmp_path, fault)), "devices": "cuda"}
    assert "a new one replaces it" in run_to_the_end(command_for(tmp_path, study))
    check_whole(home)


def test_a_trial_that_kills_its_workers_fails_and_the_others_live(command: list[str], home: Path) -> None:
    """As the kernel does for want of memory: SIGKILL to whoever has trial 1, until it is told failed."""

    def holder() -> int | None:
        return next((w.pid for w in workers_now(home) if w.trial == 1 and w.phase == "search"), None)

    search = start(command)
    for _ in range(3):
        psutil.Process(wait_until(holder)).kill()
        wait_until(lambda: holder() is None)
    code, output = end_of(search)
    assert code == 0, output
    study = study_of(home)
    assert results(study) == {TrialState.COMPLETE: [0, 2, 3], TrialState.FAIL: [1]}
    assert study is not None and "3 workers died on it" in study.trials[1].user_attrs["failure"]
    assert "for lack of memory" in output
    assert not workers_of(home)


def test_a_model_that_the_memory_limit_does_not_hold_costs_its_trials_only(
    study_file: dict[str, Any], tmp_path: Path, home: Path
) -> None:
    """RLIMIT_AS at 900 MB over what a worker has at its start: the small model's trials took 480 MB of address space,
    the large one's 1.5 GB before their first step."""
    save_model(tmp_path / "large", "bert", layers=1, intermediate_size=4_000_000)
    metric = write_metric(tmp_path, "pass")
    limit = (
        "\nimport resource, sys, psutil\n"
        "free = resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY\n"
        "if free and any('spawned' in part for part in sys.orig_argv):\n"
        "    most = psutil.Process().memory_info().vms + 900 * 2**20\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
    )
    metric.write_text(metric.read_text() + limit)
    models = [*study_file["models"], str(tmp_path / "large")]
    first = [{"learning_rate": 2e-3}]
    study = {**quick(study_file), "metric": str(metric), "models": models, "first_trials": first, "rank": False}
    run_to_the_end(command_for(tmp_path, study))
    found = study_of(home)
    assert found is not None and len(found.trials) == 4
    for trial in found.trials:
        if trial.params["model"] == "bert":
            assert trial.state == TrialState.COMPLETE
        else:
            assert trial.state == TrialState.FAIL and trial.user_attrs["failure"].startswith("OutOfMemory")
    assert {trial.params["model"] for trial in found.trials} == {"bert", "large"}


@pytest.mark.parametrize("holds", ["database", "checkpoints"])
def test_a_full_disk_pauses_the_search_and_it_goes_on(
    holds: str, command: list[str], home: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 16 MB: SQLite's log alone grows to 4 MB."""
    database = (small_disk if holds == "database" else home.parent) / "faulty.db"
    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{database}")
    if holds == "checkpoints":
        (home / "runs" / "faulty").mkdir(parents=True)
        (home / "runs" / "faulty" / "checkpoints").symlink_to(small_disk)
    search = start(command)
    wait_until(lambda: mid_trial(home))
    ballast = small_disk / "ballast"
    fill(ballast)
    code, output = end_of(search)
    assert code == 3, output
    assert "full" in output and "Traceback" not in output
    assert not workers_of(home)
    ballast.unlink()
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    run_to_the_end(command)
    study = study_of(home)
    assert study is not None and results(study) == {TrialState.COMPLETE: [0, 1, 2, 3]}
