"""Where results live: one database and one folder for each study, under HPO_HOME (by default ./studies)."""

import hashlib
import os
import re
from pathlib import Path


def home() -> Path:
    """The folder of all results: the environment variable HPO_HOME, else `studies` in the current folder."""
    return Path(os.environ.get("HPO_HOME") or "studies").expanduser().absolute()


def default_storage() -> str:
    """The URL of the database used when neither the study nor HPO_STORAGE names one."""
    return os.environ.get("HPO_STORAGE") or f"sqlite:///{home() / 'hpo.db'}"


def run_folder(study: str) -> Path:
    """The folder of one study's files. Any name is safe: what is not a plain word is replaced and hashed."""
    return home() / "runs" / folder_name(study)


def checkpoints_folder(study: str, place: str | None) -> Path:
    """Where this machine keeps a study's checkpoints: beside its results, or in a folder that others reach too.

    `place` is the study's `checkpoints`; a URL is for the copies.
    """
    if place is None or "://" in place:
        return run_folder(study) / "checkpoints"
    return Path(place) / folder_name(study)


def folder_name(name: str) -> str:
    """A file name for any study or model name; different names never share one.

    >>> folder_name("quickstart")
    'quickstart'
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:60]
    if plain == name:
        return name
    return f"{plain or 'study'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
