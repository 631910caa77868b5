"""From an experiment to a run folder."""
