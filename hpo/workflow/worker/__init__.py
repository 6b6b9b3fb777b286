"""The worker process: runs trials, confirms the winner, trains the final model."""
