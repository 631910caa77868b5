"""The report page of a run in progress, kept up to date in a browser."""
