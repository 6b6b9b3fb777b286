"""The HTML report, the model card, the trials as CSV, notes for optuna-dashboard, and the console."""
