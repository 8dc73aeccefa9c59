"""Benchmarks: run with ``make bench``, which writes tables, a figure and all numbers to ``benchmarks/results``."""

PARTS = {
    "resident": ("resident",),
    "kernels": ("kernels",),
    "mixtures": ("mixtures",),
    "out_of_core": ("out_of_core",),
    "drift_budget": ("drift_budget",),
    "startup": ("startup",),
    "from_store": ("from_store",),
    "streaming": ("streaming",),
    "whole_jobs": ("whole_jobs",),
    "large_k": ("large_k",),
    "peers": ("peers",),
    "squarem": ("squarem",),
    "inspect": ("inspect",),
    "read": ("read",),
    "read_s3": ("read", "--gigabytes", "0.4", "--s3"),
    "nightly": ("nightly",),
    "scale": ("scale",),
    "superpixels": ("superpixels",),
    "choosing_k": ("choosing_k",),
}
"""Parts of ``make bench``, in the order in which they run and are shown: the module of each, and its arguments."""
