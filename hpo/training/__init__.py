"""Fine-tuning with torch; never imports Optuna."""
