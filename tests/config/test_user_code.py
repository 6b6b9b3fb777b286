"""Users' own files and plugins: the class that is found in them, and the message where there is none."""

from pathlib import Path

import pytest

from hpo.config.user_code import create, load_class, load_plugin, no_exit, resolve
from hpo.errors import ConfigError


class Base:
    pass


HEADER = "from tests.config.test_user_code import Base\n"


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).write_text(HEADER + text)
    return str(folder / name)


@pytest.fixture(autouse=True)
def _one_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the files import the very class of this module, which pytest imports under a name of its own."""
    import sys

    monkeypatch.setitem(sys.modules, "tests.config.test_user_code", sys.modules[__name__])


def test_the_only_subclass_is_found_and_imported_once(tmp_path: Path) -> None:
    file = write(tmp_path, "class Mine(Base): pass\n")
    kind = load_class(file, Base, "task")
    assert kind.__name__ == "Mine" and load_class(file, Base, "task") is kind
    write(tmp_path, "class Other(Base): pass\n")
    assert load_class(file, Base, "task").__name__ == "Other"


def test_a_class_may_be_named(tmp_path: Path) -> None:
    file = write(tmp_path, "class One(Base): pass\nclass Two(Base): pass\n")
    assert load_class(f"{file}:Two", Base, "task").__name__ == "Two"
    assert resolve("mine.py:Two", tmp_path) == f"{file}:Two"


def test_a_dataclass_of_a_file_is_read(tmp_path: Path) -> None:
    text = "from dataclasses import dataclass\n@dataclass\nclass Mine(Base):\n    x: 'int' = 1\n"
    assert create(load_class(write(tmp_path, text), Base, "task"), "task").x == 1


@pytest.mark.parametrize(
    ("text", "suffix", "message"),
    [
        ("class One(Base): pass\nclass Two(Base): pass\n", "", r"defines 2 subclasses of \w+\.Base.*mine\.py:One"),
        ("", "", "defines 0 subclasses"),
        ("class One(Base): pass\n", ":Onee", "defines no .*Did you mean 'One'"),
        ("1 / 0\n", "", "cannot be imported: ZeroDivisionError"),
        ("import sys\nsys.exit()\n", "", "cannot be imported: SystemExit"),
        ("def f(:\n", "", "cannot be imported: SyntaxError"),
    ],
)
def test_a_file_without_such_a_class_raises(tmp_path: Path, text: str, suffix: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)^task: {tmp_path}/mine\.py.*{message}"):
        load_class(write(tmp_path, text) + suffix, Base, "task")


def test_a_missing_file_raises_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "")
    with pytest.raises(ConfigError, match=r"there is no file .*/mina\.py\. Did you mean 'mine\.py'"):
        load_class(str(tmp_path / "mina.py"), Base, "callbacks")


def test_a_class_that_cannot_be_created_raises(tmp_path: Path) -> None:
    kind = load_class(write(tmp_path, "class Mine(Base):\n    def __init__(self, x): pass\n"), Base, "callbacks")
    with pytest.raises(ConfigError, match=r"Mine of .*mine\.py cannot be created: TypeError"):
        create(kind, "callbacks")


def install(folder: Path, group: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package that registers `value` under `name`."""
    info = folder / "hpo_plugin-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hpo-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(str(folder))


def test_a_broken_plugin_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "hpo.tasks", "mine", "no_such_module:Task", monkeypatch)
    assert load_plugin("hpo.tasks", "other", "task") is None
    with pytest.raises(ConfigError, match=r"task: 'mine' of hpo-plugin \(no_such_module:Task\).*ModuleNotFoundError"):
        load_plugin("hpo.tasks", "mine", "task")


def test_class_that_exits_when_it_is_created_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "class Mine(Base):\n    def __init__(self):\n        raise SystemExit(0)\n")
    with pytest.raises(ConfigError, match=r"task: Mine of .*mine\.py cannot be created: SystemExit"):
        create(load_class(file, Base, "task"), "task")


def test_exit_in_a_users_file_is_an_error_and_any_other_exit_is_not(tmp_path: Path) -> None:
    file = write(tmp_path, "class Mine(Base):\n    def loss(self):\n        raise SystemExit(0)\n")
    mine = create(load_class(file, Base, "task"), "task")
    with pytest.raises(ConfigError, match=r"mine\.py, line 4: loss ends the process \(SystemExit: 0\)"), no_exit():
        mine.loss()
    with pytest.raises(SystemExit), no_exit():
        raise SystemExit(3)
