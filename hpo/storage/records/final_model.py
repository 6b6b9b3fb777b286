"""The record of a final model, which is also the file `hpo.json` in its folder, with a digest of each other file."""

import hashlib
import json
import statistics
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, computed_field, field_serializer

from hpo.config.constraints import Footprint
from hpo.errors import StudyError
from hpo.storage.records.base import Record, Redacted

FILE_NAME = "hpo.json"
CARD = "README.md"  # users edit it
TASK_FILE = "task.py"  # of a user's own task
METRIC_FILE = "metric.py"  # of a user's own metric
READING = {
    "text",
    "image",
    "audio",
    "label",
    "label_delimiter",
    "drop_empty",
    "encoding",
    "header",
}  # keys of `data_config`


class RankedOutcome(Record):
    """A ranked model with the value of its best complete trial; None where it has none."""

    model: str
    score: float | None
    best: float | None
    reason: Redacted = ""


class RankingAgreement(Record):
    """How well a ranking agreed with the search. `tau` is Kendall's tau-b; None for fewer than two different values."""

    rows: int
    models: tuple[RankedOutcome, ...]
    tau: float | None


class DataRecord(Record):
    """A study's data without its rows and its path. `columns` maps each role (text, label, …) to its source column."""

    sizes: dict[str, int] = Field({})
    labels: tuple[str, ...] = ()
    columns: dict[str, Any] = Field({})
    notes: tuple[str, ...] = ()
    fingerprint: str = ""


class ConfirmedTrial(Record):
    """A configuration of the search with its validation scores on fresh seeds; `values` is empty where it has none."""

    trial: int
    params: dict[str, Any]
    search_value: float
    values: dict[int, float] = Field({})  # by seed
    footprint: Footprint | None = None  # of the trained model, the least of its runs; None where it was not measured
    violations: str = ""  # the constraints that it exceeds, for which it cannot be the winner

    @computed_field  # type: ignore[prop-decorator]
    @property
    def mean(self) -> float:
        """The mean over the fresh seeds; the value of the search where it was not confirmed."""
        return statistics.fmean(self.values.values()) if self.values else self.search_value

    @computed_field  # type: ignore[prop-decorator]
    @property
    def std(self) -> float:
        """The sample standard deviation over the fresh seeds; 0 for fewer than two."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else 0.0


class FirstTrial(Record):
    """The best complete trial among the configurations that the search tried first."""

    trial: int
    value: float
    params: dict[str, Any]


class FinalScores(Record):
    """Scores on the test split. `interval` is the metric's 95 % bootstrap interval; None for the loss."""

    metrics: dict[str, float]
    interval: tuple[float, float] | None
    rows: int
    evaluations: int = 1  # of the test split in this study so far


class Baseline(Record):
    """A simple model's score on the test split."""

    name: str
    value: float


class Confusion(Record):
    """Counts on the test split: a row for each true class, a column for each predicted one."""

    labels: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]


class SavedFile(Record):
    """A file of a final model's folder, as it was saved."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read the file at `path`."""
        with path.open("rb") as file:
            return cls(size=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


class FinalModel(Record):
    """A final model: how it was chosen and trained, its scores, and what prediction needs of its data."""

    study: str
    identity: str = ""  # of the study, which another study of that name does not share
    task: str
    metric: str
    metric_source: str = ""  # the metric as configured: its name, or the copy of a user's file in the folder
    winner: ConfirmedTrial
    confirmed: tuple[ConfirmedTrial, ...] = ()  # best first, those that exceed the constraints last
    defaults: FirstTrial | None = None
    refit: str  # the rows that it was trained on: train+validation, train, or none (the validated checkpoint)
    model_dir: Path
    command: str  # that trains it again
    data: DataRecord
    data_config: dict[str, Any] = Field({})  # how columns and labels were read
    max_length: int  # tokens, or audio samples, of an input; 0 where the task has no such limit
    trust_remote_code: bool = False  # whether the model's own Python code, which the folder holds, is run to load it
    versions: dict[str, str] = Field({})
    footprint: Footprint | None = None
    violations: str = ""  # the constraints that it exceeds
    ranking: RankingAgreement | None = None
    test: FinalScores | None = None
    baseline: Baseline | None = None
    confusion: Confusion | None = None
    seconds: dict[str, float] = Field({})  # by phase: search, retrain
    files: dict[str, SavedFile] = Field({})  # the folder's files by path, without this record and the card

    @property
    def value(self) -> float:
        """The metric on the test split; without one, the winner's mean on validation."""
        return self.winner.mean if self.test is None else self.test.metrics[self.metric]

    @field_serializer("model_dir")
    def _relative(self, folder: Path) -> str:
        """Store the folder relative to the study's run folder, which may be moved with HPO_HOME."""
        return folder.name

    def write(self, folder: Path) -> Self:
        """Write the record into the model's folder, as its last file; the folder itself may be moved.

        Return the record with the digests of the folder's files. Raises `OSError`.
        """
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        names = {path.relative_to(folder).as_posix(): path for path in paths}
        files = {name: SavedFile.of(path) for name, path in names.items() if name not in (FILE_NAME, CARD)}
        record = self.model_copy(update={"files": files})
        text = record.model_dump_json(indent=1, exclude={"model_dir"})
        (folder / FILE_NAME).write_text(text, encoding="utf-8")
        return record

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the record of the final model in `folder`. Raises `StudyError` when there is none, or it is damaged."""
        try:
            written = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
            if not isinstance(written, dict):
                raise ValueError(f"it holds {type(written).__name__}, not an object")
            return cls.model_validate({**written, "model_dir": folder})
        except (FileNotFoundError, NotADirectoryError):
            raise StudyError(f"There is no final model at {folder}; `hpo retrain` trains it again.") from None
        except ValidationError as error:
            key = ".".join(map(str, error.errors()[0]["loc"]))
            reason = f"its key '{key}' is missing or wrong"
        except (OSError, ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0]
        raise StudyError(
            f"The final model at {folder} is damaged: {FILE_NAME} cannot be read ({reason}). "
            "`hpo retrain` trains it again."
        )

    def check_files(self) -> None:
        """Compare the folder's files with their digests. Raises `StudyError` that names the first that differs."""
        for name, saved in self.files.items():
            path = self.model_dir / name
            try:
                size = path.stat().st_size
                if size == saved.size and SavedFile.of(path) == saved:
                    continue
                other_size = f"{size:,} bytes instead of {saved.size:,}"
                problem = f"{name} has {other_size if size != saved.size else 'other content than was saved'}"
            except FileNotFoundError:
                problem = f"{name} is missing"
            except OSError as error:
                problem = f"{name} cannot be read ({error.strerror})"
            raise StudyError(
                f"The final model at {self.model_dir} is damaged or was changed: {problem}. `{self.command}` trains it "
                "again."
            )
