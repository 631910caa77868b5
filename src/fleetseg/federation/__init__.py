"""What the server does: rounds, cohorts, messages, folding, checkpoints."""
