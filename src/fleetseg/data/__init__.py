"""Data of vehicles: label spaces, sources, cache, partitions, augmentation."""
