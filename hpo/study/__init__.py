"""The search: Optuna and SQLAlchemy, never torch."""
