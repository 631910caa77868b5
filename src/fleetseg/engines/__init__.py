"""Engines for simulated clients: in this process, in worker processes, with faults."""
