"""Checkpoints, local and remote."""
