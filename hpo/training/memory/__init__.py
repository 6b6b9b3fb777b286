"""Micro-batch size and out-of-memory errors."""
