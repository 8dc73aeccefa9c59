"""Seeding, the loop, convergence, and the label pass."""
