"""Gradient accumulation in micro-batches that fit in memory."""
