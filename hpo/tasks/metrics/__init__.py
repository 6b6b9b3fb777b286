"""Metrics as `evaluate.Metric` classes, one file for each kind of prediction."""
