"""Parts of other packages that this library uses, and that these do not promise to keep: a module for each package.

Each function does one thing and says why there is no other way. `tests/test_compat.py` checks that the names are where
they are sought. Packages are imported inside the functions, so that these modules cost nothing to import.
"""
