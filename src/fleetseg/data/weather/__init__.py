"""Weather for photographs."""
