"""The server's side of federated learning: rounds, cohorts, messages, aggregation, checkpoints."""
