"""The console: messages, the live view, plans and results in a terminal, a notebook or a pipe."""
