"""Checks and forecasts before anything is trained."""
