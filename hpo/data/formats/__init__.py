"""Formats of data files, each with its recognizer by content and its reader."""
