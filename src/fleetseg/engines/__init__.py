"""Where simulated clients run: in this process, in workers, with faults."""
