"""Samples decoded once to the working size, then read from memory-mapped files."""
