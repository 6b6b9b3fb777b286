"""What comes with hpo beside its code: search spaces with good defaults, small models."""

import sys
from pathlib import Path
from typing import Any

from hpo.config.yaml import read_yaml
from hpo.errors import ConfigError, did_you_mean


def ready_made(folder: str) -> Path:
    """A folder that comes with hpo (search_spaces, examples/models): of the checkout, else of the installation."""
    checkout = Path(__file__).parents[2] / folder
    return checkout if checkout.is_dir() else Path(sys.prefix) / "share" / "hpo" / folder


def read_space_file(name: str, folder: Path) -> dict[str, Any]:
    """Read a search space named by a file of `folder`, or one of the ready-made ones by its name.

    Beside parameters it may hold `first_trials`: good defaults for it.
    """
    shipped = ready_made("search_spaces")
    for path in (folder / name, shipped / f"{name}.yaml"):
        if path.is_file():
            return read_yaml(path)
    ready = sorted(path.stem for path in shipped.glob("*.yaml"))
    raise ConfigError(
        f"search_space: '{name}' is neither a file nor ready-made.{did_you_mean(name, ready)} "
        f"Ready-made: {', '.join(ready)}."
    )
