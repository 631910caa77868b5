"""Who holds which sample."""
