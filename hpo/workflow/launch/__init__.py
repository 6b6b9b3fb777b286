"""Creating or resuming a study and starting its workers."""
