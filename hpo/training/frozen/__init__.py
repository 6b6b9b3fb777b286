"""The cache of frozen layers and the forward pass that starts from it."""
