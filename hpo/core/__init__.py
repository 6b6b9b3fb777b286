"""Paths, processes, caches, formatting, secrets and packaged files. Imports the standard library only."""
