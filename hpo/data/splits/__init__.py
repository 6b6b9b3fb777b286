"""Train, validation and test splits: stratified, grouped, k-fold, subsampled."""
