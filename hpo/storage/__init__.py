"""The study database: Optuna storage, leases, budget, records."""
