"""Faster CPU implementations of attention, dropout and embeddings."""
