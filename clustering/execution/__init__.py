"""The map-reduce on Dask, which blocks stay at hand, and connecting to a cluster."""
