"""Fine-tuning with torch, never Optuna."""
