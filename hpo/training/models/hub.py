"""Finds out quickly whether the Hugging Face hub can be reached, and loads without it where possible."""

import os
import socket
from typing import Any
from urllib.parse import urlparse

from hpo.config.model_ref import ModelRef


def from_pretrained_arguments(ref: ModelRef) -> dict[str, Any]:
    """Return keyword arguments for `from_pretrained`: local models, and all models offline, load without the hub."""
    keywords: dict[str, Any] = {"trust_remote_code": ref.trust_remote_code, "subfolder": ref.subfolder}
    if ref.revision:
        keywords["revision"] = ref.revision
    keywords["local_files_only"] = ref.is_local or hub_is_unreachable()
    return keywords


def hub_is_unreachable(timeout_seconds: float = 3.0) -> bool:
    """Return whether HF_HUB_OFFLINE is set, or the hub's host does not accept a connection in `timeout_seconds`.

    The hub's own client retries for 23 s before it raises.
    """
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        return True
    host = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    proxied = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    if proxied:
        return False
    try:
        port = host.port or (443 if host.scheme == "https" else 80)
        socket.create_connection((host.hostname or "", port), timeout_seconds).close()
    except OSError:
        return True
    return False
