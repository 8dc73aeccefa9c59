"""Plots of a fit on matplotlib's axes. There is one way to draw each thing: users and the report share it."""

import os

from clustering.temporary import home_folder, is_writable, temporary_folder

_home = home_folder()
# matplotlib keeps a list of fonts in this folder, and prints a warning where it cannot write there.
if not os.environ.get("MPLCONFIGDIR") and not (_home and is_writable(_home / ".config")):
    os.environ["MPLCONFIGDIR"] = str(temporary_folder("matplotlib") or "")
