"""Locations of results: one database, and one folder for each study, in HPO_HOME (default: ./studies)."""

import hashlib
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

OWNER = ".study"  # the file in a run folder that holds the identity of its study


def home() -> Path:
    """Return the folder of all results: the environment variable HPO_HOME, or `studies` in the current folder."""
    return Path(os.environ.get("HPO_HOME") or "studies").expanduser().absolute()


def default_storage() -> str:
    """Return the database URL for studies that name none: the environment variable HPO_STORAGE, or SQLite in `home`."""
    return os.environ.get("HPO_STORAGE") or f"sqlite:///{quote(str(home() / 'hpo.db'))}"


def new_identity() -> str:
    """Return a random identity for a new study: two studies of one name, in two databases, differ in it."""
    return uuid.uuid4().hex


def named_folder(study: str) -> Path:
    """Return the folder of the first study of this name. Any study name is safe (see `folder_name`)."""
    return home() / "runs" / folder_name(study)


def run_folder(study: str, identity: str) -> Path:
    """Return the folder of one study's files: `named_folder`, or where another study has that, one with the identity.

    The folder need not exist, and may be nobody's until `claim_run_folder`.
    """
    first = named_folder(study)
    own = first.with_name(unique_name(study, identity))
    owner = folder_owner(first)
    if owner == identity or (owner is None and folder_owner(own) != identity):
        return first
    return own


def folders_of(study: str) -> list[Path]:
    """Return the run folders of all studies of this name, of any database."""
    first = named_folder(study)
    return [folder for folder in [first, *first.parent.glob(f"{first.name}-????????")] if folder_owner(folder)]


def claim_run_folder(study: str, identity: str) -> Path:
    """Create a study's folder, marked as its own, and return it. Raises `OSError` where it cannot be written."""
    while folder_owner(folder := run_folder(study, identity)) != identity:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f"{OWNER}.{uuid.uuid4().hex}"
        scratch.write_text(identity, encoding="utf-8")
        with suppress(FileExistsError):  # claimed by another study meanwhile
            os.link(scratch, folder / OWNER)
        scratch.unlink()
    return folder


def folder_owner(folder: Path) -> str | None:
    """Return the identity of the study that a folder's files are of; None where the folder has none."""
    try:
        return (folder / OWNER).read_text(encoding="utf-8")
    except OSError:
        return None


def checkpoints_folder(study: str, identity: str, checkpoints: str | None) -> Path:
    """Return the local folder of a study's checkpoints.

    `checkpoints` is the value in the study's configuration: a shared folder, or None or a URL (to which copies are
    uploaded), where the local checkpoints are in the study's `run_folder`.
    """
    if checkpoints is None or "://" in checkpoints:
        return run_folder(study, identity) / "checkpoints"
    return Path(checkpoints) / unique_name(study, identity)


def unique_name(study: str, identity: str) -> str:
    """Return a file name of a study that no other study of the same name has."""
    return f"{folder_name(study)}-{identity[:8]}"


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
