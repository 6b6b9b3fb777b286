"""Every command, study file and Python example of the README, as written, on a small csv file.

Hub models, which are out of reach in tests, are replaced by two of the bundled ones.
"""

import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hpo.config.load import load_config
from hpo.config.trial_params import TrialParams
from hpo.config.yaml import parse_yaml
from hpo.tasks.registry import TASKS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
HUB_MODELS = {
    "distilbert/distilbert-base-uncased": str(ROOT / "examples/models/distilbert-2x160"),
    "sentence-transformers/all-MiniLM-L6-v2": str(ROOT / "examples/models/bert-3x128"),
}


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    assert found
    for hub, local in HUB_MODELS.items():
        found = [block.replace(hub, local) for block in found]
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with reviews.csv, results in its studies/, and `hpo` of this environment on the PATH."""
    good = ["fine", "great", "moving", "clever", "warm", "bright"]
    bad = ["dull", "poor", "noisy", "empty", "cold", "flat"]
    rng = random.Random(0)
    lines = ["text,label"]
    for i in range(300):
        words = rng.choice((("positive", good), ("negative", bad)))
        lines.append(f"a {rng.choice(words[1])} film number {i} and {rng.choice(words[1])} too,{words[0]}")
    (tmp_path / "reviews.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "studies"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def run(command: str) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_commands_for_your_own_data(folder: Path) -> None:
    commands = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    for command in filter(None, commands):
        if command.startswith("hpo "):
            output = run(command)
            if command.startswith("hpo predict"):
                assert output.split()[0] in ("positive", "negative")
    assert (folder / "studies/runs/reviews/report.html").is_file()


@pytest.mark.slow
def test_the_python_example(folder: Path) -> None:
    (folder / "example.py").write_text(blocks("python")[0])
    output = run(f"{shlex.quote(sys.executable)} example.py")
    assert "learning_rate" in output
    assert (folder / "studies/runs/reviews-python/final/model.safetensors").is_file()


def test_the_study_file(folder: Path) -> None:
    written = parse_yaml(blocks("yaml")[0], "README.md")
    written["models"][1].pop("revision")  # a local folder has none
    config = load_config({"name": "readme", **written})
    assert config.budget.max_hours == 2
    assert config.search_space.conditional


def test_the_make_targets_and_the_table_of_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z-]+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    from typer.main import get_command

    from hpo.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    rows = re.findall(r"^\| `hpo ([a-z]+)[^|]*\|(.*)\|$", README, flags=re.MULTILINE)
    assert {name for name, _ in rows} == set(commands)
    for name, text in rows:
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", text)) <= options


def test_every_parameter_of_a_trial_and_every_task_has_its_line() -> None:
    """`frozen_share` is written as `frozen_layers: {share: …}`."""
    words = set(re.findall(r"[a-z_]+", README))
    assert set(TrialParams.model_fields) - {"frozen_share"} <= words
    assert set(TASKS) == set(re.findall(r"^\| `([a-z-]+)` \|", README, flags=re.MULTILINE)) & set(TASKS)
    assert {name for task in TASKS.values() for name in task.augmentations} <= words
