"""Jobs around the library: config, steps, Prefect flows, and the command line."""
