"""The wheel that is built from a checkout works wherever it is installed, without the checkout."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[2]
SOURCES = (
    "hpo",
    "search_spaces",
    "examples/models",
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
)
# Run in an installation, from another folder.
PROBE = """
import sys
from importlib.metadata import version
from pathlib import Path
import hpo
from hpo.config.space_files import read_space_file, ready_made_spaces
from hpo.core.assets import asset_folder
from hpo.tasks.registry import TASKS

checkout, package = Path(sys.argv[1]), Path(hpo.__file__).parent
own = [entry for entry in sys.path if "site-packages" not in entry]  # the environment may lie in the checkout
assert not any(Path(entry).resolve().is_relative_to(checkout) for entry in own), sys.path
assert not package.is_relative_to(checkout), package
assert {task.search_space for task in TASKS.values()} <= set(ready_made_spaces())
assert "learning_rate" in read_space_file("vision", Path.cwd())
assert len(list(asset_folder("demo_models").glob("*/model.safetensors"))) == 4
assert asset_folder("search_spaces").is_relative_to(package)
print(package, version("hpo-finetune"))
"""


def run(*command: str | Path, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)), env={**kept, **environment}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources: a checkout keeps no `build/`."""
    copy = tmp_path_factory.mktemp("sources")
    for source in SOURCES:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, copy / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, copy / source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet")
    run(*pip, "--no-deps", "--no-build-isolation", "--no-index", "-w", copy / "dist", copy)
    (built,) = (copy / "dist").iterdir()
    return built


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """The Python of a new environment that has the packages of this one, except for hpo.

    A `.pth` file of the new environment names this one's folder, whose own `.pth` files, one of which may make hpo's
    checkout importable, are not read then.
    """
    folder = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return folder / "bin" / "python"


def install_plainly(wheel: Path, python: Path) -> dict[str, str]:
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    return {}


def install_in_a_target(wheel: Path, python: Path) -> dict[str, str]:
    target = python.parents[1].with_name("target")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel)
    shutil.copy(target / "bin" / "hpo", python.parent / "hpo")
    return {"PYTHONPATH": str(target)}


def install_for_the_user(wheel: Path, python: Path) -> dict[str, str]:
    settings = python.parents[1] / "pyvenv.cfg"  # an environment that reads the user's packages, too
    settings.write_text(settings.read_text().replace("system-site-packages = false", "system-site-packages = true"))
    user = {"PYTHONUSERBASE": str(python.parents[1].with_name("user"))}
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--user", "--no-warn-script-location")
    run(*pip, "--quiet", "--no-deps", "--no-index", wheel, **user)
    shutil.copy(Path(user["PYTHONUSERBASE"]) / "bin" / "hpo", python.parent / "hpo")
    return user


def install_by_uv(wheel: Path, python: Path) -> dict[str, str]:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is not installed")
    cache = {"UV_CACHE_DIR": str(python.parents[1].with_name("uv"))}
    run(uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, wheel, **cache)
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("install", [install_plainly, install_in_a_target, install_for_the_user, install_by_uv])
def test_the_installed_package_runs_from_another_folder(
    wheel: Path,
    environment: Path,
    install: Callable[[Path, Path], dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables = install(wheel, environment)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    probe = tmp_path / "probe.py"
    probe.write_text(PROBE)
    package, _ = run(environment, probe, ROOT, **variables).split()
    assert Path(package).is_relative_to(tmp_path)
    assert "hpo run" in run(environment, environment.parent / "hpo", "--help", **variables)


@pytest.mark.slow
def test_the_text_of_the_index_page_has_no_relative_links(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        text = archive.read(metadata).decode()
    assert "# hpo\n" in text
    assert not re.findall(r"\]\((?!https?://|#)[^)]*\)", text)


def test_links_of_the_index_page_lead_to_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    index_page = runpy.run_path(str(ROOT / "setup.py"))["index_page"]
    readme = "![A report](docs/report.png) [How](CONTRIBUTING.md), [below](#below), [Optuna](https://optuna.org)"
    assert index_page(readme, "https://host/owner/hpo", "1.2") == (
        "![A report](https://host/owner/hpo/raw/v1.2/docs/report.png) "
        "[How](https://host/owner/hpo/blob/v1.2/CONTRIBUTING.md), [below](#below), [Optuna](https://optuna.org)"
    )
    assert index_page(readme, None, "1.2") == " How, [below](#below), [Optuna](https://optuna.org)"
