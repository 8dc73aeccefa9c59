"""The map-reduce on Dask, the block cache, and connections to Dask clusters."""
