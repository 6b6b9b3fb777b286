"""Tasks whose model generates text."""
