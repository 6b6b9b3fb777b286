"""Where search and training meet."""
