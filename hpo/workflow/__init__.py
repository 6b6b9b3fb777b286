"""Runs a study: connects search, training, storage and workers."""
