"""The parts of scripts/soak.py: what is done to a run, and what must come of it."""
