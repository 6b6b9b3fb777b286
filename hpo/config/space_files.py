"""Search spaces that a study names: files of its own, and the ready-made ones that come with hpo."""

from pathlib import Path
from typing import Any

from hpo.config.yaml import read_yaml
from hpo.core.assets import asset_folder
from hpo.errors import ConfigError, did_you_mean


def ready_made_spaces() -> dict[str, Path]:
    """Return the file of each ready-made search space by its name, in alphabetical order."""
    return dict(sorted((path.stem, path) for path in asset_folder("search_spaces").glob("*.yaml")))


def read_space_file(name: str, folder: Path) -> dict[str, Any]:
    """Read the search space in file `name` of `folder`, or else the ready-made one called `name`.

    Beside parameters it may hold `first_trials`: good defaults for it. Raises `ConfigError` where there is neither.
    """
    if (folder / name).is_file():
        return read_yaml(folder / name)
    ready_made = ready_made_spaces()
    if name not in ready_made:
        raise ConfigError(
            f"search_space: '{name}' is neither a file nor ready-made.{did_you_mean(name, ready_made)} "
            f"Ready-made: {', '.join(ready_made)}."
        )
    return read_yaml(ready_made[name])
