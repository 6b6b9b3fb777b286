"""Where workers run: one file a backend. `hpo.workflow.placing` opens the one that a study names."""
