"""Trackers for a run's figures and pictures: one small adapter for each library."""
