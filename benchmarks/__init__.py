"""Benchmarks: run with ``make bench``; each writes a table and a figure to ``benchmarks/results``."""
