"""The examples on images and audio run on fewer rows, and their final models predict for a new file."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = load("images").main(tmp_path, rows=30, trials=2)
    assert 0 <= result.metrics["accuracy"] <= 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.split()[1] in ("circle", "square") for line in lines if line.startswith(("0.", "1.", "2."))) == 3


def test_audio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tunes, notes = load("audio").main(tmp_path, rows=20, clips=30, trials=1)
    assert 0 <= tunes.metrics["accuracy"] <= 1 and notes.metrics["wer"] >= 0
    output = capsys.readouterr().out
    assert "tunes → " in output and "notes → " in output
