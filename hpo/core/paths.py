"""Locations of results: one database, and one folder for each study, in HPO_HOME (default: ./studies)."""

import hashlib
import os
import re
from pathlib import Path


def home() -> Path:
    """Return the folder of all results: the environment variable HPO_HOME, or `studies` in the current folder."""
    return Path(os.environ.get("HPO_HOME") or "studies").expanduser().absolute()


def default_storage() -> str:
    """Return the database URL for studies that name none: the environment variable HPO_STORAGE, or SQLite in `home`."""
    return os.environ.get("HPO_STORAGE") or f"sqlite:///{home() / 'hpo.db'}"


def run_folder(study: str) -> Path:
    """Return the folder of one study's files. Any study name is safe (see `folder_name`)."""
    return home() / "runs" / folder_name(study)


def checkpoints_folder(study: str, checkpoints: str | None) -> Path:
    """Return the local folder of a study's checkpoints.

    `checkpoints` is the value in the study's configuration: a shared folder, or None or a URL (to which copies are
    uploaded), where the local checkpoints are in the study's `run_folder`.
    """
    if checkpoints is None or "://" in checkpoints:
        return run_folder(study) / "checkpoints"
    return Path(checkpoints) / folder_name(study)


def folder_name(name: str) -> str:
    """Return a file name for any study or model name; different names never share one.

    Names of letters, digits, `.`, `_` and `-` are kept. Other characters are replaced, and a hash is appended.

    >>> folder_name("quickstart")
    'quickstart'
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:60]
    if plain == name:
        return name
    return f"{plain or 'study'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
