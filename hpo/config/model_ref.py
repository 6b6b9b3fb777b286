"""References to candidate models, and their labels, which are unique in a study."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from hpo.config.validation import Config
from hpo.errors import ConfigError


class ModelRef(Config):
    """A candidate model: a hub id or a local folder, and how to load it."""

    name: str = Field(min_length=1, description="Hub id or local folder.")
    revision: str | None = None
    subfolder: str = ""
    processor: str | None = Field(
        None,
        description="Hub id or folder of the tokenizer, image or audio processor; null: the model's own.",
    )
    trust_remote_code: bool = False
    allow_pickle: bool = Field(False, description="Accept pickled weights (.bin): they can run code when loaded.")
    source_prefix: str = Field(
        "", description="Prepended to each input text of a sequence-to-sequence model, as T5 expects."
    )
    label: str = Field("", description="Name of the model in the study; empty: derived from `name`.")
    dropped: str = Field("", description="Why it is no candidate: set by hpo for models that violate `constraints`.")

    @property
    def is_local(self) -> bool:
        """Whether the model is a local folder."""
        return Path(self.name).is_dir()


def label_models(refs: Sequence[Any]) -> list[Any]:
    """Return the candidates with a unique label each: a hub id itself, or the shortest unique end of a folder's path.

    Labels that are given are kept. Raises `ConfigError` for a model that is listed twice.
    """
    plain = [dict(ref) if isinstance(ref, Mapping) else ref for ref in refs]
    taken: set[str] = set()
    for ref in plain:
        if not isinstance(ref, dict) or not isinstance(ref.get("name"), str):
            continue  # pydantic reports it
        label = ref.get("label") or next((label for label in _labels_for(ref) if label not in taken), None)
        if label is None or label in taken:
            raise ConfigError(f"models: '{label or ref['name']}' is listed twice.")
        taken.add(label)
        ref["label"] = label
    return plain


def _labels_for(ref: Mapping[str, Any]) -> Iterator[str]:
    """Yield the possible labels of a model, shortest first."""
    path = Path(ref["name"])
    parts = path.parts if path.is_absolute() else (ref["name"],)
    detail = (f"/{ref['subfolder']}" if ref.get("subfolder") else "") + (
        f"@{ref['revision']}" if ref.get("revision") else ""
    )
    for kept in range(1, len(parts) + 1):
        yield str(Path(*parts[-kept:])) + detail
