"""Copies of checkpoints at a URL: another machine goes on from them, a torn one is passed over, none is left behind."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from hpo.core.errors import ConfigError
from hpo.training.fine_tune import FineTuning, TrainingPlan
from hpo.training.mirror import Mirror
from tests.training.test_checkpoint import after, names

Plan = Callable[..., TrainingPlan]


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path / 'bucket'}" if request.param == "file" else f"memory://{tmp_path.name}"


def copies(url: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url)
    return sorted(name.removeprefix(root).lstrip("/") for name in files.find(root))


def test_another_machine_goes_on_from_the_newest(url: str, plan: Plan) -> None:
    made = plan()
    mirror = Mirror(url, "study")
    mirror.check()
    made.folder.mkdir()
    (made.folder / "curve-1.json").write_text("[]")
    for step in (2, 3):
        assert mirror.put(after(made, step).save(), "trial-0") == f"{url}/study/trial-0/checkpoint-1-{step}"
    kept = [f"study/trial-0/checkpoint-1-3/{name}" for name in ("curve-1.json", "state.json", "state.safetensors")]
    assert copies(url) == kept  # one for each trial, and nothing half-written
    shutil.rmtree(made.folder)
    Mirror(url, "study").fetch("trial-0", made.folder)
    assert names(made.folder) == ["checkpoint-1-3", "curve-1.json"]
    assert FineTuning(made).progress.step == 3
    mirror.remove("trial-0")
    assert copies(url) == []


def test_what_is_here_is_not_fetched(url: str, plan: Plan) -> None:
    made = plan()
    mirror = Mirror(url, "study")
    mirror.put(after(made, 2).save(), "trial-0")
    after(made, 3).save()
    mirror.fetch("trial-0", made.folder)
    assert names(made.folder) == ["checkpoint-1-3"]
    mirror.fetch("trial-1", made.folder)  # nothing is there


def test_a_torn_copy_is_passed_over(plan: Plan, tmp_path: Path) -> None:
    made, url = plan(), f"file://{tmp_path / 'bucket'}"
    mirror = Mirror(url, "study")
    mirror.put(after(made, 2).save(), "trial-0")
    older = tmp_path / "bucket" / "study" / "trial-0" / "checkpoint-1-2"
    shutil.copytree(older, tmp_path / "kept")
    mirror.put(after(made, 3).save(), "trial-0")
    shutil.copytree(tmp_path / "kept", older)
    (older.with_name("checkpoint-1-3") / "state.json").unlink()  # killed before the manifest, which comes last
    shutil.rmtree(made.folder)
    mirror.fetch("trial-0", made.folder)
    assert FineTuning(made).progress.step == 2
    assert names(made.folder) == ["checkpoint-1-2"]


def test_a_place_out_of_reach_costs_no_trial(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    made, mirror = plan(), Mirror(f"file://{tmp_path / 'bucket'}", "study")

    def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    for name in ("makedirs", "ls", "exists"):
        monkeypatch.setattr(mirror._files, name, away)
    assert mirror.put(after(made, 2).save(), "trial-0") is None
    mirror.fetch("trial-0", tmp_path / "elsewhere")
    mirror.remove("trial-0")
    assert [record.message.split(": ")[-1] for record in caplog.records] == ["no route"] * 3
    with pytest.raises(ConfigError, match=r"checkpoints: cannot write to file://.*: ConnectionError: no route"):
        mirror.check()


def test_a_url_that_nothing_opens_is_told() -> None:
    with pytest.raises(ConfigError, match=r"checkpoints: nonsense://x cannot be opened: Protocol not known"):
        Mirror("nonsense://x", "study")
