"""Labelled data: readers, sources, labels, splits, media files."""
