"""What hpo records of a study, of its trials and of its final model; no other folder names their attributes."""
