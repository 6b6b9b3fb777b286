"""Creates or resumes a study and starts its workers."""
