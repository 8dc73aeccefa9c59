"""Checkpoints, models, labels and the output folder."""
