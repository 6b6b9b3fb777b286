"""A run's learning curve so far, in a file beside its checkpoints: a killed process cannot write it at its end."""

import json
import os
from contextlib import suppress
from pathlib import Path

Point = dict[str, float]

PREFIX = "curve-"


class LearningCurve:
    """The points of a run up to the rung that its checkpoint reached; each further one is in a file at once.

    So the files never lack a point that a checkpoint is past, wherever the process is killed. Each attempt writes a
    file of its own: one that was frozen, and whose run another took over, does not write over the other's points.
    """

    def __init__(self, folder: Path, attempt: int, reached: int) -> None:
        self._file = folder / f"{PREFIX}{attempt}.json"
        self.points: list[Point] = [point for point in _read(folder) if point["step"] <= reached]

    def add(self, point: Point) -> None:
        """Append a point. Raises `OSError`."""
        self.points.append(point)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        scratch.write_text(json.dumps(self.points), encoding="utf-8")
        scratch.replace(self._file)


def remove_learning_curve(folder: Path) -> None:
    """Delete the files of a finished run: its points are in the trial by now."""
    for file in _files(folder):
        file.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    """What the attempts wrote, the newest last."""
    return sorted(folder.glob(f"{PREFIX}*.json"), key=lambda file: int(file.stem.removeprefix(PREFIX)))


def _read(folder: Path) -> list[Point]:
    """The points of all attempts; of two for one step, the newer attempt's."""
    points: dict[float, Point] = {}
    for file in _files(folder):
        # Not there any more, or torn by a power cut: what other files hold serves.
        with suppress(FileNotFoundError, ValueError):
            points |= {point["step"]: point for point in json.loads(file.read_text(encoding="utf-8"))}
    return [points[step] for step in sorted(points)]
