"""Train, validation and test splits, folds and subsamples."""
