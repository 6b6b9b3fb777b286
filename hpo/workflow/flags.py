"""Advice of data errors in terms of a command's options: before there is a study file, no key can be set in one."""

import re
from collections.abc import Iterable

INIT = ("text", "label", "group", "encoding", "header", "drop_empty", "label_delimiter", "train", "validation", "test")
PREDICT = ("encoding",)


def as_flags(message: str, keys: Iterable[str] = INIT) -> str:
    """Return `message` with `data.KEY: VALUE` as `--KEY VALUE`, for the `keys` that the command has as options."""
    known = tuple(keys)
    message = re.sub(r"\bdata\.(image|audio)\b", "data.text", message) if "text" in known else message

    def flag(match: re.Match[str]) -> str:
        key, value = match["key"], match["value"]
        if key not in known:
            return match[0]
        option = f"--{key.replace('_', '-')}"
        return f"`{option}`" if value in (None, "true") else f"`{option} {value}`"

    message = re.sub(r"`data\.(?P<key>\w+)(?:: (?P<value>[^`]+))?`", flag, message)
    names = "|".join(known)
    return re.sub(rf"\bdata\.({names})(?=:)", lambda match: f"--{match[1].replace('_', '-')}", message)
