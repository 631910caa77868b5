"""Partitioning: which client holds which sample."""
