"""The report, the model card, the dashboard and the console."""
