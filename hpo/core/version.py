"""The version of hpo, which `pyproject.toml` repeats."""

VERSION = "0.1.0"
