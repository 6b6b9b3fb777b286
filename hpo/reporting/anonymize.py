"""Names and commands for publication, without this machine's folders and without passwords."""

import re
import shlex
from pathlib import PurePath

from hpo.errors.redact import redact_url


def anonymize_name(name: str) -> str:
    """Return a hub id or relative path unchanged, and the last component of any other path.

    >>> anonymize_name("sentence-transformers/all-MiniLM-L6-v2"), anonymize_name("/home/me/models/tiny")
    ('sentence-transformers/all-MiniLM-L6-v2', 'tiny')
    """
    path = PurePath(name)
    return path.name if path.is_absolute() or ".." in path.parts or name.startswith("~") else name


def anonymize_command(command: str) -> str:
    """Return a command with absolute paths reduced to their last component and passwords in URLs hidden.

    >>> anonymize_command("hpo run /home/me/a.yaml --storage mysql://me:secret@db/x")
    'hpo run a.yaml --storage mysql://me:***@db/x'
    """
    try:
        arguments = shlex.split(command)
    except ValueError:
        arguments = command.split()
    return " ".join(_quote(_anonymize_argument(argument)) for argument in arguments)


def _anonymize_argument(argument: str) -> str:
    argument = redact_url(argument)
    if "://" in argument:
        return re.sub(r"^(.*?\w:///)/.*/", r"\1", argument)
    key, sign, value = argument.partition("=")
    return f"{key}{sign}{anonymize_name(value)}" if sign else anonymize_name(argument)


def _quote(argument: str) -> str:
    # A `*` replaces a password and needs no quotes: the command is read and adapted, not pasted.
    return argument if re.fullmatch(r"[\w@%+=:,./*-]+", argument) else shlex.quote(argument)
