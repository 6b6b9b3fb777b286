"""Tasks on audio."""
