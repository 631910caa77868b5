"""Whether a model may go into the vehicles: the gate, and the registry of released models."""
