"""The parts of bench_verdicts.py."""
