"""A run's learning curve so far, in a file beside its checkpoints: a killed process cannot write it at its end."""

import json
import os
from pathlib import Path

Point = dict[str, float]

FILE = "curve.json"


class Curve:
    """The points of a run up to the rung that its checkpoint reached; each further one is in the file at once.

    So the file never lacks a point that a checkpoint is past, wherever the process is killed.
    """

    def __init__(self, folder: Path, reached: int) -> None:
        self._file = folder / FILE
        self.points: list[Point] = [point for point in _read(self._file) if point["step"] <= reached]

    def add(self, point: Point) -> None:
        """Append a point. Raises `OSError`."""
        self.points.append(point)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._file.with_name(f".{FILE}.{os.getpid()}")
        scratch.write_text(json.dumps(self.points), encoding="utf-8")
        scratch.replace(self._file)


def remove_curve(folder: Path) -> None:
    """Delete the file of a finished run: its points are in the trial by now."""
    (folder / FILE).unlink(missing_ok=True)


def _read(file: Path) -> list[Point]:
    try:
        points: list[Point] = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []  # not begun, or torn by a power cut
    return points
