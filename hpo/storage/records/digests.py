"""Digests of the files that a study is made from, beside its data: a metric, a task and the weights of local models."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from hpo.config.study import StudyConfig
from hpo.config.user_code import is_file, split_reference
from hpo.errors import StudyError
from hpo.storage.records.study import StudyRecord

_NOT_READ = (".md", ".lock", ".gitattributes")  # files of a model's folder that no model is built from


def digests(config: StudyConfig) -> dict[str, str]:
    """Return the SHA-256 of each local file or folder that the values of trials depend on, by its key in the study."""
    return {key: _digest(path) for key, path in _sources(config) if path.exists()}


def changed_files(record: StudyRecord, config: StudyConfig) -> list[str]:
    """Return which files of `config` are not those that the recorded study was created from."""
    now, paths = digests(config), dict(_sources(config))
    return [
        f"{key}: the content of {paths[key]} has changed"
        for key, before in record.digests.items()
        if key in now and now[key] != before
    ]


def check_digests(record: StudyRecord) -> None:
    """Raise `StudyError` where a file here is not what the recorded study was created from."""
    config = record.study_config
    changed = changed_files(record, config)
    if changed:
        raise StudyError(
            f"Study '{config.name}' was created from other files than those on this machine:\n  "
            + "\n  ".join(changed)
            + "\nRestore them, or create a study of another name."
        )


def _sources(config: StudyConfig) -> Iterator[tuple[str, Path]]:
    for key, reference in (("metric", config.metric), ("task", config.task)):
        if is_file(reference):
            yield key, split_reference(reference)[0]
        elif Path(reference).is_absolute():  # a metric of `evaluate` in a folder
            yield key, Path(reference)
    for model in config.models:
        for key, name in (("", model.name), (".processor", model.processor)):
            if name is not None and Path(name).is_absolute() and not model.dropped:
                yield f"models.{model.label}{key}", Path(name) / model.subfolder


def _digest(path: Path) -> str:
    """Return the digest of a file, or of the names and contents of a folder's files."""
    files = [path] if path.is_file() else [f for f in sorted(path.iterdir()) if f.is_file() and _is_read(f)]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(f"{'' if file == path else file.name} {content}\n".encode())
    return digest.hexdigest()


def _is_read(file: Path) -> bool:
    return not file.name.startswith(".") and not file.name.endswith(_NOT_READ)
