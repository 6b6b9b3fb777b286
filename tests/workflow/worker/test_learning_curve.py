"""The learning curve on disk: a resumed run has every point, whichever attempt wrote it."""

from pathlib import Path

from hpo.storage.records.trial import CurvePoint
from hpo.workflow.worker.learning_curve import LearningCurve, remove_learning_curve


def points(attempt: int, last: int) -> list[CurvePoint]:
    return [
        CurvePoint(step=step, epoch=step, train_loss=0.5, seconds=1.0, value=attempt + step / 10)
        for step in range(1, last + 1)
    ]


def write(folder: Path, attempt: int, reached: int, last: int) -> LearningCurve:
    curve = LearningCurve(folder, "", attempt, reached)
    for point in points(attempt, last)[reached:]:
        curve.add(point)
    return curve


def test_resumed_run_has_the_points_up_to_its_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 1, reached=0, last=3)
    assert LearningCurve(tmp_path, "", 2, reached=2).points == points(1, 2)
    assert LearningCurve(tmp_path, "", 2, reached=0).points == []


def test_suspended_attempt_does_not_overwrite_the_next_ones_points(tmp_path: Path) -> None:
    frozen = write(tmp_path, 1, reached=0, last=2)
    write(tmp_path, 2, reached=2, last=5)
    frozen.add(points(1, 3)[-1])  # it continues
    assert LearningCurve(tmp_path, "", 3, reached=5).points == points(1, 2) + points(2, 5)[2:]
    (tmp_path / "curve-2.json").write_text("[{")  # torn by a power failure
    assert LearningCurve(tmp_path, "", 3, reached=5).points == points(1, 3)
    remove_learning_curve(tmp_path)
    assert not list(tmp_path.iterdir())
