"""Data augmentation for images and audio."""
