"""Names and commands as they may leave this machine: without its folders, and without passwords."""

import re
import shlex
from pathlib import PurePath

from hpo.storage.urls import hide_password


def anonymize_name(name: str) -> str:
    """A hub id or relative path as it is, an absolute path by its last name.

    >>> anonymize_name("sentence-transformers/all-MiniLM-L6-v2"), anonymize_name("/home/me/models/tiny")
    ('sentence-transformers/all-MiniLM-L6-v2', 'tiny')
    """
    path = PurePath(name)
    return path.name if path.is_absolute() or ".." in path.parts or name.startswith("~") else name


def anonymize_command(command: str) -> str:
    """A command line with absolute paths cut to their last names and passwords in URLs hidden.

    >>> anonymize_command("hpo run /home/me/a.yaml --storage mysql://me:secret@db/x")
    'hpo run a.yaml --storage mysql://me:***@db/x'
    """
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    return " ".join(_quoted(_portable_word(word)) for word in words)


def _portable_word(word: str) -> str:
    if "://" in word:
        return re.sub(r"^(.*?\w:///)/.*/", r"\1", hide_password(word))
    key, sign, value = word.partition("=")
    return f"{key}{sign}{anonymize_name(value)}" if sign else anonymize_name(word)


def _quoted(word: str) -> str:
    # A plain `*` hides a password and needs no quotes: the line is to be read, then adapted.
    return word if re.fullmatch(r"[\w@%+=:,./*-]+", word) else shlex.quote(word)
