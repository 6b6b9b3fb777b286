"""Label columns: one file for each kind of label."""
