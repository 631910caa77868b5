"""What a vehicle sees: label spaces, sources, cache, partitions, augmentation."""
