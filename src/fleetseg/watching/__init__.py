"""The report page of a run that is still at work, kept up to date in a browser."""
