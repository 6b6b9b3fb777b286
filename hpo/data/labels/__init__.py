"""Readers of label columns, one for each kind of label."""
