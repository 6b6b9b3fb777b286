"""The configuration of a study: its schema, search space, first trials, parsing, validation, and the files it names."""
