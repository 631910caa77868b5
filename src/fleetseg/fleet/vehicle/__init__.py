"""The vehicle's side of a networked fleet."""
