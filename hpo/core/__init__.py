"""Paths, processes, caches, formatting and packaged files. Imports the standard library only."""
