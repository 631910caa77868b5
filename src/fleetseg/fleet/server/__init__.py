"""The server's side of a networked fleet."""
