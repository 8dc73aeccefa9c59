"""Settings of the kernels that run tutorials."""

c = get_config()  # noqa: F821

# Kernels of a build talk on loopback, and warn that they do so without encryption.
c.IPKernelApp.log_level = "ERROR"
# On a busy machine, a tutorial would show the line that kernels are compiled; where the log is read, there is none.
c.IPKernelApp.exec_lines = [
    "import logging as _logging",
    "_logging.getLogger('clustering').addHandler(_logging.FileHandler('clustering.log'))",
    "_logging.getLogger('clustering').setLevel('INFO')",
]
