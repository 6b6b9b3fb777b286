"""Files that are distributed with hpo beside its code: ready-made search spaces and small demonstration models."""

from pathlib import Path

# Where a checkout keeps them; the build copies them into the package (`setup.py`).
_IN_CHECKOUT = {"search_spaces": "search_spaces", "demo_models": "examples/models"}


def asset_folder(name: str) -> Path:
    """Return the folder of `search_spaces` or `demo_models`: package data, or of the checkout that hpo runs from."""
    from importlib.resources import files  # here, since its import takes 7 ms

    package = Path(str(files("hpo")))
    packaged = package / name
    return packaged if packaged.is_dir() else package.parent / _IN_CHECKOUT[name]
