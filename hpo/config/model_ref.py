"""The candidates of a study as a person names them, and the short labels that tell them apart."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from hpo.config.base import Config
from hpo.errors import ConfigError


class ModelRef(Config):
    """A candidate: a hub id or a local folder."""

    name: str = Field(min_length=1, description="Hub id or local folder.")
    revision: str | None = None
    subfolder: str = ""
    processor: str | None = Field(
        None, description="Hub id or folder of the tokenizer, image or sound processor; null: the model's own."
    )
    trust_remote_code: bool = False
    allow_pickle: bool = Field(False, description="Accept pickled weights (.bin): they can run code when loaded.")
    source_prefix: str = Field(
        "", description="Put before each text that a model reads to write another, as T5's wish."
    )
    label: str = Field("", description="How the model is called in the study; empty: made from its name.")
    dropped: str = Field("", description="Why it is no candidate: hpo writes here what `constraints` rule out.")

    @property
    def is_local(self) -> bool:
        return Path(self.name).is_dir()


def label_models(refs: Sequence[Any]) -> list[Any]:
    """Give each model without one a short label, unique in the study: a hub id as it is, a folder by its last name.

    Folders of one name are told apart by those above them. Raises `ConfigError` for a model that is listed twice.
    """
    plain = [dict(ref) if isinstance(ref, Mapping) else ref for ref in refs]
    taken: set[str] = set()
    for ref in plain:
        if not isinstance(ref, dict) or not isinstance(ref.get("name"), str):
            continue  # told by pydantic
        label = ref.get("label") or next((label for label in _labels_for(ref) if label not in taken), None)
        if label is None or label in taken:
            raise ConfigError(f"models: '{label or ref['name']}' is listed twice.")
        taken.add(label)
        ref["label"] = label
    return plain


def _labels_for(ref: Mapping[str, Any]) -> Iterator[str]:
    """The labels a model may get, the shortest first."""
    path = Path(ref["name"])
    parts = path.parts if path.is_absolute() else (ref["name"],)
    detail = (f"/{ref['subfolder']}" if ref.get("subfolder") else "") + (
        f"@{ref['revision']}" if ref.get("revision") else ""
    )
    for kept in range(1, len(parts) + 1):
        yield str(Path(*parts[-kept:])) + detail
