"""Labelled N-d data as blocks of rows, and back."""
