"""Encoded features and batches."""
