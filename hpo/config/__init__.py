"""What users write: study files, search spaces, first trials, and their validation."""
