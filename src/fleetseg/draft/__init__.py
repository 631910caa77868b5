"""From a folder of images to an experiment that runs: what is there, what fits, and a file."""
