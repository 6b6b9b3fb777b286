"""The examples on text generation run unchanged, and generate a day or a date."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("script", "pattern"),
    [
        pytest.param("translation.py", r"7 March 2024 → \d{4}-03-\d\d", marks=pytest.mark.slow),
        ("chat.py", r"which day comes after Friday \? → it is \w+day \."),
    ],
)
def test_example_runs_and_predicts(script: str, pattern: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / script), str(tmp_path)]
    environment = {**os.environ, "HPO_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(pattern, done.stdout), done.stdout
