"""Samplers, pruners and warm start on Optuna; never imports torch."""
