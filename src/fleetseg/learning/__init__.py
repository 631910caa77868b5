"""The client side of training: losses, parameter groups, schedules, local training."""
