"""The server of a networked fleet."""
