"""Seeding, the loop, convergence, and the labelling pass."""
