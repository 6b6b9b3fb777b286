"""Transferability scores of candidate models."""
