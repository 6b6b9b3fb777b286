"""The configuration of a study: its schema, search spaces, first trials, parsing and validation."""
