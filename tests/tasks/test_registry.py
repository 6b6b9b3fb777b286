"""Tasks by name: those of hpo, of a user's file, and of installed packages."""

from pathlib import Path

import pytest

from hpo.config.backend import BackendConfig
from hpo.config.study import StudyConfig
from hpo.errors import ConfigError
from hpo.tasks.registry import get_task
from hpo.workflow.launch.placement import create_placement

MODULE = """
from hpo.tasks.text.text_classification import TextClassification


class Mine(TextClassification):
    name = "mine"


def create(config):
    return ("placed", config.backend.settings)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that registers a task, a broken one, and a backend."""
    info = tmp_path / "hpo_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hpo-plugin\nVersion: 1.0\n")
    entries = "[hpo.tasks]\nmine = hpo_plugin_of_tests:Mine\nbroken = hpo_plugin_of_tests:Missing\n"
    (info / "entry_points.txt").write_text(f"{entries}[hpo.backends]\nmy-cluster = hpo_plugin_of_tests:create\n")
    (tmp_path / "hpo_plugin_of_tests.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_unknown_task_raises_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'text-classification'.*\./my_task\.py"):
        get_task("text-clasification")


def test_task_of_a_file_has_the_digest_of_its_version(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MODULE)
    task = get_task(str(file))
    file.write_text(f"{MODULE}# changed\n")
    assert task.name == "mine" and len(task.source_digest) == 64
    assert get_task(str(file)).source_digest != task.source_digest


def test_task_of_a_file_that_lacks_a_method_raises(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import hpo\n\nclass Mine(hpo.Task):\n    name = 'mine'\n")
    with pytest.raises(ConfigError, match=r"task: Mine of .*mine\.py cannot be created: TypeError"):
        get_task(str(tmp_path / "mine.py"))


def test_task_and_backend_of_a_package(package: Path) -> None:
    assert get_task("mine").name == "mine"
    with pytest.raises(ConfigError, match=r"task: 'broken' of hpo-plugin .*AttributeError"):
        get_task("broken")
    with pytest.raises(ConfigError, match="mine"):
        get_task("mien")
    config = BackendConfig.model_validate({"my-cluster": {"queue": "long"}})
    assert config.to_dict() == {"my-cluster": {"queue": "long"}}
    study = StudyConfig.model_construct(backend=config)
    assert create_placement(study) == ("placed", {"queue": "long"})
