"""Image and audio files."""
