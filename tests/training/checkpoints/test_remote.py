"""Copies of checkpoints at a URL: another machine resumes from them, torn ones are skipped, all are removed."""

import math
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from hpo.errors import ConfigError
from hpo.training.checkpoints.remote import RemoteCheckpoints
from hpo.training.fine_tune import FineTuning
from hpo.training.plan import TrainingPlan
from tests.training.checkpoints.test_checkpoint import names
from tests.training.conftest import train_steps

Plan = Callable[..., TrainingPlan]


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path / 'bucket'}" if request.param == "file" else f"memory://{tmp_path.name}"


def copies(url: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url)
    return sorted(name.removeprefix(root).lstrip("/") for name in files.find(root))


def test_another_machine_resumes_from_the_latest(url: str, plan: Plan) -> None:
    made = plan()
    remote = RemoteCheckpoints(url, "study", "")
    remote.check()
    made.folder.mkdir()
    (made.folder / "curve-1.json").write_text("[]")
    for step in (2, 3):
        assert (
            remote.put(train_steps(FineTuning(made), step).save(), "trial-0")
            == f"{url}/study/trial-0/checkpoint-1-{step}"
        )
    expected = [f"study/trial-0/checkpoint-1-3/{name}" for name in ("curve-1.json", "state.json", "state.safetensors")]
    assert copies(url) == expected  # one for each trial, no scratch files
    shutil.rmtree(made.folder)
    RemoteCheckpoints(url, "study", "").fetch("trial-0", made.folder)
    assert names(made.folder) == ["checkpoint-1-3", "curve-1.json"]
    assert FineTuning(made).progress.step == 3
    remote.remove("trial-0")
    assert copies(url) == []


def test_a_later_local_checkpoint_is_kept(url: str, plan: Plan) -> None:
    made = plan()
    remote = RemoteCheckpoints(url, "study", "")
    remote.put(train_steps(FineTuning(made), 2).save(), "trial-0")
    train_steps(FineTuning(made), 3).save()
    remote.fetch("trial-0", made.folder)
    assert names(made.folder) == ["checkpoint-1-3"]
    remote.fetch("trial-1", made.folder)  # there is no copy


def test_torn_copy_is_skipped(plan: Plan, tmp_path: Path) -> None:
    made, url = plan(), f"file://{tmp_path / 'bucket'}"
    remote = RemoteCheckpoints(url, "study", "")
    remote.put(train_steps(FineTuning(made), 2).save(), "trial-0")
    older = tmp_path / "bucket" / "study" / "trial-0" / "checkpoint-1-2"
    shutil.copytree(older, tmp_path / "kept")
    remote.put(train_steps(FineTuning(made), 3).save(), "trial-0")
    shutil.copytree(tmp_path / "kept", older)
    (older.with_name("checkpoint-1-3") / "state.json").unlink()  # killed before it wrote the manifest, the last file
    shutil.rmtree(made.folder)
    remote.fetch("trial-0", made.folder)
    assert FineTuning(made).progress.step == 2
    assert names(made.folder) == ["checkpoint-1-2"]


class Flaky(LocalFileSystem):
    """Local files at `flaky://PATH`: the next `failing` calls raise, and calls block while `answers` is not set."""

    protocol = "flaky"
    failing = 0.0
    calls = 0
    answers = threading.Event()

    @classmethod
    def _strip_protocol(cls, path: str, *given: Any) -> Any:
        return LocalFileSystem._strip_protocol(path.removeprefix("flaky://"))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._respond()
        super().makedirs(path, exist_ok)

    def exists(self, path: str, **given: Any) -> bool:
        self._respond()
        return bool(super().exists(path, **given))

    def ls(self, path: str, detail: bool = False, **given: Any) -> Any:
        self._respond()
        return super().ls(path, detail, **given)

    @classmethod
    def _respond(cls) -> None:
        cls.calls += 1
        cls.answers.wait()
        if cls.failing > 0:
            cls.failing -= 1
            raise ConnectionError("no route")


@pytest.fixture
def flaky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    monkeypatch.setattr("hpo.training.checkpoints.remote.FIRST_PAUSE", 0.01)
    Flaky.failing, Flaky.calls = 0, 0
    Flaky.answers.set()
    yield f"flaky://{tmp_path / 'bucket'}"
    Flaky.answers.set()


def test_requests_are_retried_with_pauses(flaky: str, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan()
    warnings: list[str] = []
    pauses: list[float] = []
    shutdown = threading.Event()
    monkeypatch.setattr(shutdown, "wait", pauses.append)
    remote = RemoteCheckpoints(flaky, "study", "", shutdown, warnings.append)
    Flaky.failing = 2
    assert remote.put(train_steps(FineTuning(made), 2).save(), "trial-0") == f"{flaky}/study/trial-0/checkpoint-1-2"
    assert pauses == [0.01, 0.02]
    shutil.rmtree(made.folder)
    Flaky.failing = 3
    remote.fetch("trial-0", made.folder)
    assert names(made.folder) == ["checkpoint-1-2"]
    assert pauses == [0.01, 0.02, 0.01, 0.02, 0.04] and warnings == []


def test_unreachable_url_warns_once_and_fails_no_trial(flaky: str, plan: Plan, tmp_path: Path) -> None:
    made = plan()
    warnings: list[str] = []
    remote = RemoteCheckpoints(flaky, "study", "", warn=warnings.append)
    Flaky.failing = math.inf
    assert remote.put(train_steps(FineTuning(made), 2).save(), "trial-0") is None
    assert Flaky.calls == 4
    assert remote.put(train_steps(FineTuning(made), 3).save(), "trial-0") is None
    remote.fetch("trial-0", tmp_path / "elsewhere")
    remote.remove("trial-0")
    assert Flaky.calls == 7  # one request each, without pauses: training does not wait for a URL that fails
    (first,) = warnings
    assert first.startswith(f"checkpoints: {flaky} cannot be written. Trials continue")
    assert first.endswith("(ConnectionError: no route).")
    with pytest.raises(ConfigError, match=r"checkpoints: cannot write to flaky://.*: ConnectionError: no route"):
        remote.check()
    Flaky.failing = 0  # reachable again
    assert remote.put(train_steps(FineTuning(made), 4).save(), "trial-0") is not None
    Flaky.failing = math.inf
    remote.remove("trial-0")
    assert len(warnings) == 2 and "copies of checkpoints remain in study/trial-0 (ConnectionError" in warnings[1]


def test_url_without_response_does_not_delay_a_shutdown(
    flaky: str, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.training.checkpoints.remote.SHUTDOWN_SECONDS", 0.2)
    made = plan()
    warnings: list[str] = []
    shutdown = threading.Event()
    remote = RemoteCheckpoints(flaky, "study", "", shutdown, warnings.append)
    Flaky.answers.clear()
    threading.Timer(0.5, shutdown.set).start()
    assert remote.put(train_steps(FineTuning(made), 2).save(), "trial-0") is None
    assert Flaky.calls == 1 and "TimeoutError: no response for" in warnings[0]
    assert remote.put(train_steps(FineTuning(made), 3).save(), "trial-0") is None
    assert Flaky.calls == 1  # no second request before the first has returned
    Flaky.answers.set()
    assert remote._request is not None
    remote._request.join()
    assert remote.put(train_steps(FineTuning(made), 4).save(), "trial-0") is not None


def test_only_copies_of_finished_trials_are_removed(url: str, plan: Plan) -> None:
    made, remote = plan(), RemoteCheckpoints(url, "study", "")
    remote.remove_all({"trial-0"})  # there is no copy
    saved = train_steps(FineTuning(made), 2).save()
    for trial in ("trial-0", "trial-1", "trial-10"):
        remote.put(saved, trial)
    remote.remove_all({"trial-0", "trial-1", "trial-2"})
    assert {name.split("/")[1] for name in copies(url)} == {"trial-10"}


def test_url_of_an_unknown_protocol_raises_config_error() -> None:
    with pytest.raises(ConfigError, match=r"checkpoints: nonsense://x cannot be opened: Protocol not known"):
        RemoteCheckpoints("nonsense://x", "study", "")
