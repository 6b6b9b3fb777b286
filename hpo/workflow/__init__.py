"""Where the search and the training meet."""
