"""Draft an experiment from a folder of images: inspect, choose settings, write the file."""
