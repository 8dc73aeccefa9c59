"""Figures and the HTML page of a report."""

# Plots set the folder of matplotlib, and have to do so before a module here loads it.
import clustering.plots  # noqa: F401
