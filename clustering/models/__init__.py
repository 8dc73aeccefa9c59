"""Statistics, update and assignment: pure functions, frozen values and the numeric kernels."""
