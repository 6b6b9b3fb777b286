"""Paths, processes, caches and formatting: the standard library only."""
