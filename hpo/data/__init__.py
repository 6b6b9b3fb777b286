"""Labelled data: reading, splitting, checking."""
