"""Figures and the HTML page."""

import os

from clustering.temporary import home_folder, is_writable, temporary_folder

_home = home_folder()
# matplotlib keeps a list of fonts there, and complains in two lines where it cannot.
if not os.environ.get("MPLCONFIGDIR") and not (_home and is_writable(_home / ".config")):
    os.environ["MPLCONFIGDIR"] = str(temporary_folder("matplotlib") or "")
