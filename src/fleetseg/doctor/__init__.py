"""Whether this machine can train, how fast, and what is missing; it returns, and prints nothing."""
