"""Tasks: one file each, listed in `registry`."""
