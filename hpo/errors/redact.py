"""Hides passwords, tokens and keys: in every error, log line, recorded reason and displayed command."""

import logging
import re
import sys
import traceback
from types import TracebackType

MASK = "***"

_SCHEME = r"[A-Za-z][A-Za-z0-9+.\-]*"
_FILE_SCHEMES = ("sqlite", "file", "local")
# Names of secrets, anywhere: `password=…` of libpq, `AccountKey=…` of Azure, `export WANDB_API_KEY=…`. A token of a
# tokenizer is not one.
_NAME = (
    r"[\w.\-]*(?:passwd|password|passphrase|passwort|pwd|secret|credentials?|signature"
    r"|(?:api|access|account|secret|private|shared|storage)[_\-]?key(?:[_\-]?id)?"
    r"|(?<!pad_)(?<!eos_)(?<!bos_)(?<!sep_)(?<!cls_)(?<!unk_)(?<!mask_)token)"
)
_ASSIGNED = re.compile(
    rf"""(?<![\w.\-])({_NAME}["']?\s?=\s?|["']{_NAME}["']\s*:\s*)("[^"]+"|'[^']+'|[^\s&"']+)""", re.IGNORECASE
)
# In a query, shorter names count too: `?sig=…`, `&key=…`.
_IN_QUERY = re.compile(
    r"([?&;][^=&\s]*(?:pass|pwd|secret|token|key|sig|sas|cred|auth)[^=&\s]*=)[^&\s\"'>]+", re.IGNORECASE
)
_HEADER = re.compile(r"((?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?(?:bearer |basic )?)[^\s\"']+", re.IGNORECASE)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
_BARE = re.compile(r"(?<![\w/:.+\-])([\w.+%\-]*):(?!/)([^\s@]*\S*)@(?=[\w\[])")


def redact(text: str) -> str:
    """Return a message without the secrets in it: of URLs, `key=value` pairs, headers and tokens of the hub.

    It hides too much rather than too little: in a URL, everything from the first colon to the last @.

    >>> redact("cannot write to s3://KEY:se/cr@et@bucket/x: password=hunter2 was rejected")
    'cannot write to s3://KEY:***@bucket/x: password=*** was rejected'
    """
    return _hide(text, r"\S")


def redact_url(url: str) -> str:
    """Return a single URL, connection string or command argument without its secrets, which may contain spaces.

    >>> redact_url("postgresql://me:my secret@host/hpo?sslpassword=secret")
    'postgresql://me:***@host/hpo?sslpassword=***'
    """
    url = _hide(url, r"[\s\S]")
    # `postgresql://me:secret`, where @host was forgotten: what follows the colon is no port.
    return re.sub(rf"({_SCHEME}://)(?!/)([^\s\[:/@?]+):(?!\*|\d*(?:[/?#\s)]|$))[^?]*", rf"\1\2:{MASK}", url)


def has_secret(text: str) -> bool:
    """Return whether `redact_url` would hide a part of `text`; references such as `$TOKEN` are no secrets."""
    text = re.sub(r"\$(?:\w+|\{\w+\})", "", text)
    return redact_url(text) != text


def _hide(text: str, character: str) -> str:
    text = re.sub(rf"(?<![A-Za-z0-9+.\-])({_SCHEME})(:/+)({character}+)", _hide_user_info, text)
    if "@" in text:
        text = _BARE.sub(rf"\1:{MASK}@", text)
    text = _IN_QUERY.sub(rf"\1{MASK}", text)
    text = _ASSIGNED.sub(rf"\1{MASK}", text)
    return _HUB_TOKEN.sub(f"hf_{MASK}", _HEADER.sub(rf"\1{MASK}", text))


def _hide_user_info(match: re.Match[str]) -> str:
    scheme, slashes, rest = match[1], match[2], match[3]
    if scheme.startswith(_FILE_SCHEMES) and slashes != "://":
        return match[0]  # a path, in which @ and : are ordinary characters
    user_info, at, tail = rest.rpartition("@")
    user, colon, secret = user_info.partition(":")
    if at and secret:
        return f"{scheme}{slashes}{user}:{MASK}@{tail}"
    if user_info and not colon and "/" not in user_info and re.fullmatch(r"(?:\w+\+)?https?|ftps?", scheme):
        return f"{scheme}{slashes}{MASK}@{tail}"  # https://TOKEN@host
    return match[0]


class RedactedFormatter(logging.Formatter):
    """A log formatter whose lines, tracebacks included, have no secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback to stderr without secrets: a `sys.excepthook`."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
