"""Samplers, pruners and warm start for Optuna; never imports torch."""
