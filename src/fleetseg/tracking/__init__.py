"""Where a run's figures and pictures go beside its folder: one small adapter for each library."""
