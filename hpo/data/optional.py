"""Packages that only some data needs: what is missing is told with the line that installs it."""

from importlib import import_module
from typing import Any

from hpo.errors import DataError


def require_module(module: str, extra: str, what: str) -> Any:
    """The module, or a `DataError` that says how to install it: `what` needs the extra `extra` of hpo."""
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(
            f"{what} needs a package that is not installed: pip install 'hpo-finetune[{extra}]'."
        ) from error
