"""Copies of checkpoints at a URL: another machine goes on from them, a torn one is passed over, none is left behind."""

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
from tests.training.checkpoints.test_checkpoint import after, names

Plan = Callable[..., TrainingPlan]


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path / 'bucket'}" if request.param == "file" else f"memory://{tmp_path.name}"


def copies(url: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url)
    return sorted(name.removeprefix(root).lstrip("/") for name in files.find(root))


def test_another_machine_goes_on_from_the_newest(url: str, plan: Plan) -> None:
    made = plan()
    remote = RemoteCheckpoints(url, "study")
    remote.check()
    made.folder.mkdir()
    (made.folder / "curve-1.json").write_text("[]")
    for step in (2, 3):
        assert remote.put(after(made, step).save(), "trial-0") == f"{url}/study/trial-0/checkpoint-1-{step}"
    kept = [f"study/trial-0/checkpoint-1-3/{name}" for name in ("curve-1.json", "state.json", "state.safetensors")]
    assert copies(url) == kept  # one for each trial, and nothing half-written
    shutil.rmtree(made.folder)
    RemoteCheckpoints(url, "study").fetch("trial-0", made.folder)
    assert names(made.folder) == ["checkpoint-1-3", "curve-1.json"]
    assert FineTuning(made).progress.step == 3
    remote.remove("trial-0")
    assert copies(url) == []


def test_what_is_here_is_not_fetched(url: str, plan: Plan) -> None:
    made = plan()
    remote = RemoteCheckpoints(url, "study")
    remote.put(after(made, 2).save(), "trial-0")
    after(made, 3).save()
    remote.fetch("trial-0", made.folder)
    assert names(made.folder) == ["checkpoint-1-3"]
    remote.fetch("trial-1", made.folder)  # nothing is there


def test_a_torn_copy_is_passed_over(plan: Plan, tmp_path: Path) -> None:
    made, url = plan(), f"file://{tmp_path / 'bucket'}"
    remote = RemoteCheckpoints(url, "study")
    remote.put(after(made, 2).save(), "trial-0")
    older = tmp_path / "bucket" / "study" / "trial-0" / "checkpoint-1-2"
    shutil.copytree(older, tmp_path / "kept")
    remote.put(after(made, 3).save(), "trial-0")
    shutil.copytree(tmp_path / "kept", older)
    (older.with_name("checkpoint-1-3") / "state.json").unlink()  # killed before the manifest, which comes last
    shutil.rmtree(made.folder)
    remote.fetch("trial-0", made.folder)
    assert FineTuning(made).progress.step == 2
    assert names(made.folder) == ["checkpoint-1-2"]


class Flaky(LocalFileSystem):
    """Local files at `flaky://PATH`, away for as many calls as `failing` says, and silent while `silent` is unset."""

    protocol = "flaky"
    failing = 0.0
    calls = 0
    answers = threading.Event()

    @classmethod
    def _strip_protocol(cls, path: str, *given: Any) -> Any:
        return LocalFileSystem._strip_protocol(path.removeprefix("flaky://"))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._meet()
        super().makedirs(path, exist_ok)

    def exists(self, path: str, **given: Any) -> bool:
        self._meet()
        return bool(super().exists(path, **given))

    def ls(self, path: str, detail: bool = False, **given: Any) -> Any:
        self._meet()
        return super().ls(path, detail, **given)

    @classmethod
    def _meet(cls) -> None:
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


def test_a_copy_is_tried_again_with_pauses(flaky: str, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    made, remote, told = plan(), RemoteCheckpoints(flaky, "study"), []
    paused: list[float] = []
    monkeypatch.setattr(remote.shutdown, "wait", paused.append)
    remote.warn = told.append
    Flaky.failing = 2
    assert remote.put(after(made, 2).save(), "trial-0") == f"{flaky}/study/trial-0/checkpoint-1-2"
    assert paused == [0.01, 0.02]
    shutil.rmtree(made.folder)
    Flaky.failing = 3
    remote.fetch("trial-0", made.folder)
    assert names(made.folder) == ["checkpoint-1-2"]
    assert paused == [0.01, 0.02, 0.01, 0.02, 0.04] and told == []


def test_a_place_out_of_reach_is_told_once_and_costs_no_trial(flaky: str, plan: Plan, tmp_path: Path) -> None:
    made, remote, told = plan(), RemoteCheckpoints(flaky, "study"), []
    remote.warn = told.append
    Flaky.failing = math.inf
    assert remote.put(after(made, 2).save(), "trial-0") is None
    assert Flaky.calls == 4
    assert remote.put(after(made, 3).save(), "trial-0") is None
    remote.fetch("trial-0", tmp_path / "elsewhere")
    remote.remove("trial-0")
    assert Flaky.calls == 7  # once each, without pauses: the training is not to wait for what does not work
    (first,) = told
    assert first.startswith(f"checkpoints: {flaky} cannot be written. Trials continue")
    assert first.endswith("(ConnectionError: no route).")
    with pytest.raises(ConfigError, match=r"checkpoints: cannot write to flaky://.*: ConnectionError: no route"):
        remote.check()
    Flaky.failing = 0  # it is back
    assert remote.put(after(made, 4).save(), "trial-0") is not None
    Flaky.failing = math.inf
    remote.remove("trial-0")
    assert len(told) == 2 and "copies of checkpoints remain in study/trial-0 (ConnectionError" in told[1]


def test_a_place_that_does_not_answer_keeps_nobody_from_leaving(
    flaky: str, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.training.checkpoints.remote.SHUTDOWN_SECONDS", 0.2)
    made, remote, told = plan(), RemoteCheckpoints(flaky, "study"), []
    remote.warn = told.append
    Flaky.answers.clear()
    threading.Timer(0.5, remote.shutdown.set).start()
    assert remote.put(after(made, 2).save(), "trial-0") is None
    assert Flaky.calls == 1 and "TimeoutError: no response for" in told[0]
    assert remote.put(after(made, 3).save(), "trial-0") is None
    assert Flaky.calls == 1  # the first question is still open: no second one beside it
    Flaky.answers.set()
    assert remote._request is not None
    remote._request.join()
    assert remote.put(after(made, 4).save(), "trial-0") is not None


def test_copies_of_finished_trials_are_removed_and_others_stay(url: str, plan: Plan) -> None:
    made, remote = plan(), RemoteCheckpoints(url, "study")
    remote.remove_all({"trial-0"})  # nothing is there
    saved = after(made, 2).save()
    for trial in ("trial-0", "trial-1", "trial-10"):
        remote.put(saved, trial)
    remote.remove_all({"trial-0", "trial-1", "trial-2"})
    assert {name.split("/")[1] for name in copies(url)} == {"trial-10"}


def test_a_url_that_nothing_opens_is_told() -> None:
    with pytest.raises(ConfigError, match=r"checkpoints: nonsense://x cannot be opened: Protocol not known"):
        RemoteCheckpoints("nonsense://x", "study")
