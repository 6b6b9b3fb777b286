"""The learning curve of a run, in a file beside its checkpoints, so that a process killed at any time keeps it."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path

from hpo.storage.records.trial import CurvePoint

PREFIX = "curve-"


class LearningCurve:
    """The points of a run up to the rung that its checkpoint reached; each further one is written at once.

    So the files hold every point that a checkpoint is past, wherever the process is killed. Each attempt writes its
    own file: a suspended one whose trial was reclaimed cannot overwrite the points of the other. A file holds the
    identity of its study, and another study's is not read.
    """

    def __init__(self, folder: Path, study: str, attempt: int, reached: int) -> None:
        self._study = study
        self._file = folder / f"{PREFIX}{attempt}.json"
        self.points: list[CurvePoint] = [point for point in _read(folder, study) if point.step <= reached]

    def add(self, point: CurvePoint) -> None:
        """Append a point. Raises `OSError`."""
        self.points.append(point)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        scratch.write_text(
            json.dumps({"study": self._study, "points": [point.model_dump() for point in self.points]}),
            encoding="utf-8",
        )
        scratch.replace(self._file)


def remove_learning_curve(folder: Path) -> None:
    """Delete the files of a finished run: the trial has recorded its points."""
    for file in _files(folder):
        file.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    """Return the files of all attempts, the newest last. Other files, such as a user's backup, are ignored."""
    found = [file for file in folder.glob(f"{PREFIX}*.json") if re.fullmatch(rf"{PREFIX}[0-9]+", file.stem)]
    return sorted(found, key=lambda file: int(file.stem.removeprefix(PREFIX)))


def _read(folder: Path, study: str) -> list[CurvePoint]:
    """Return the points of all attempts of the study with this identity; of two for one step, the newer attempt's."""
    points: dict[int, CurvePoint] = {}
    for file in _files(folder):
        # Deleted meanwhile, or torn by a power failure: the other files suffice.
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            written = json.loads(file.read_text(encoding="utf-8"))
            if written["study"] == study:
                points |= {point["step"]: CurvePoint(**point) for point in written["points"]}
    return [points[step] for step in sorted(points)]
