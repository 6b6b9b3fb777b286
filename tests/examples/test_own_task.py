"""The example of a task, a metric and a callback of one's own, run by two workers from a folder of its own."""

import json
import shutil
from pathlib import Path

import pytest

import hpo
from hpo.workflow.init import write_study_file
from tests.examples.test_media import load

FILES = Path(__file__).resolve().parents[2] / "examples" / "own_task"


def test_own_task_metric_and_callback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = load("own_task/run").main(tmp_path / "study", trials=2)
    assert result.metrics["both"] <= result.metrics["my_metric"] > 0.6
    assert "huge lion → " in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "study" / "reports.jsonl").read_text().splitlines()]
    assert {line["trial"] for line in lines if line["study"] == "study"} == {0, 1}
    # The folder of the final model holds what it needs, wherever it is moved.
    moved = Path(shutil.move(result.model_dir, tmp_path / "moved"))
    shutil.rmtree(tmp_path / "study")
    predictor = hpo.Predictor(moved)
    assert predictor.predict("tiny rose")[0].keys() == {"label", "text"}
    table = tmp_path / "labeled.csv"
    table.write_text("words,kind,size\nhuge lion,animal,large\ntiny rose,plant,small\n")
    assert predictor.evaluate(table).keys() == result.metrics.keys()


def test_init_writes_the_path_of_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(FILES / "task.py", tmp_path / "mine.py")
    words = [f"{word} thing{number}" for number in range(30) for word in ("big", "tiny")]
    rows = [f"{text},animal,{'large' if text.startswith('big') else 'small'}" for text in words]
    (tmp_path / "pairs.csv").write_text("\n".join(["words,kind,size", *rows]) + "\n")
    path = write_study_file("pairs.csv", ["org/a"], task="mine.py")
    assert "task: ../mine.py\n" in path.read_text()
    from hpo.config.load import load_config

    assert load_config(path).task == str(tmp_path / "mine.py")
