"""Caches of Hugging Face's libraries where the user's home cannot be written, as in a read-only container."""

import os
import tempfile
from pathlib import Path

from hpo.core.paths import home

# What the libraries write even if nothing is downloaded, or can derive again from what is downloaded.
_WRITTEN = {
    "HF_METRICS_CACHE": "metrics",
    "HF_EVALUATE_CACHE": "evaluate",
    "HF_MODULES_CACHE": "modules",
    "HF_DATASETS_CACHE": "datasets",
}


def use_writable_caches() -> None:
    """Point the libraries to writable folders for what they cannot write, before they are imported.

    Downloaded models are still read where they are. Variables that the user has set are kept.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface"
    base = Path(os.environ.get("HF_HOME") or cache).expanduser()
    if _is_writable(base):
        return
    results, temporary = home() / "cache" / "huggingface", Path(tempfile.gettempdir()) / f"hpo-{os.getuid()}"
    folder = results if _is_writable(results) else temporary
    for variable, name in _WRITTEN.items():
        os.environ.setdefault(variable, str(folder / name))
    if not (base / "hub").is_dir() and "HUGGINGFACE_HUB_CACHE" not in os.environ:
        os.environ.setdefault("HF_HUB_CACHE", str(folder / "hub"))


def _is_writable(folder: Path) -> bool:
    """Return whether files can be created in `folder`, which need not exist yet."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
