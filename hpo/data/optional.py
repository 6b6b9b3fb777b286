"""Packages that only some data needs; the error for a missing one names the extra that installs it."""

from importlib import import_module
from typing import Any

from hpo.errors import DataError


def require_module(module: str, extra: str, what: str) -> Any:
    """Import and return a module. Raises `DataError` where it is missing: `what` needs the extra `extra` of hpo."""
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(
            f"{what} needs a package that is not installed: pip install 'hpo-finetune[{extra}]'."
        ) from error
