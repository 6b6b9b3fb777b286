"""Labeled data: readers, sources, labels, splits, media files."""
