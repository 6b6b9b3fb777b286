"""Records of a study, its trials and its final model; no other folder names their attributes."""
