"""Whether this machine can train, how fast, and what is missing: findings, nothing is printed."""
