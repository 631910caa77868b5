"""What a client does: losses, parameter groups, schedules, local training."""
