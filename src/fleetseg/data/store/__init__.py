"""Decode once, then read from disk: samples at the working size, as memory-mapped files."""
