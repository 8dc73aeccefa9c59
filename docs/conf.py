"""Settings of the pages: Markdown, tutorials that run while they are built, and the reference from docstrings."""

from __future__ import annotations

import atexit
import logging
import os
import re
import sys
from pathlib import Path
from shutil import copytree, rmtree
from tempfile import mkdtemp

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "flows")]
# Tutorials call the command.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
# Their kernels have settings of their own, in a copy, because IPython writes beside them.
os.environ["IPYTHONDIR"] = str(copytree(ROOT / "docs" / "ipython", Path(mkdtemp()) / "ipython"))
atexit.register(rmtree, Path(os.environ["IPYTHONDIR"]).parent, ignore_errors=True)

import clustering  # noqa: E402
from clustering_flows.cli import app  # noqa: E402

project = "zarr-clustering"
author = f"{project} contributors"
release = version = clustering.__version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# Headings have the anchors that code hosts give them.
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "force"
# What they write is thrown away.
nb_execution_in_temp = True
nb_execution_timeout = 120
nb_execution_raise_on_error = True
# A tutorial that warns would teach a mistake.
nb_output_stderr = "error"
nb_merge_streams = True
logging.getLogger("traitlets").setLevel(logging.WARNING)

autodoc_member_order = "groupwise"
# Docstrings name the types.
autodoc_typehints = "none"
napoleon_google_docstring = False

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path: list[str] = []
html_copy_source = False
html_show_sourcelink = False

# Files of the repository that are pages here.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "benchmarks/results/README.md": "project/results.md",
}
LINK = re.compile(r"(\]\()(?!#|[a-z]+:)([^)\s#]+)")


def lead_to_pages(text: str, folder: Path) -> str:
    """Lead links to files of the repository that are pages here to those pages.

    Parameters
    ----------
    text
        Markdown whose links count from `folder`.
    folder
        A folder of the repository.

    Returns
    -------
    str
        Markdown with links from the top of the pages, and from `folder` to other files.
    """

    def replaced(link: re.Match[str]) -> str:
        path = os.path.relpath(folder / link[2], ROOT)
        return f"{link[1]}/{PAGES[path]}" if path in PAGES else link[0]

    return LINK.sub(replaced, text)


def commands() -> str:
    """Describe all commands, as their help does.

    Returns
    -------
    str
        Markdown with a section for each command.
    """
    # Of the help of the whole program, the page has its own words. Versions come after what makes them.
    _, *sections = app.generate_docs().split("\n## clustering ")
    sections.sort(key=lambda section: section.startswith("models"))
    text = "".join(f"\n## clustering {section}" for section in sections)
    examples = re.sub(r"^Example: (.*)$", r"```sh\n\1\n```", text, flags=re.M)
    return examples.replace(" *[default: False]*", "").replace("```\n\n```sh\n", "")


def on_source(site: Sphinx, page: str, source: list[str]) -> None:
    """Change the links of a page, and add what is made from the program."""
    source[0] = lead_to_pages(source[0], Path(site.srcdir, page).parent)
    if page == "commands":
        source[0] += commands()


def on_include(site: Sphinx, path: Path, _: str, source: list[str]) -> None:
    """Change the links of a file that a page includes."""
    source[0] = lead_to_pages(source[0], Path(site.srcdir, path).parent)


def setup(site: Sphinx) -> None:
    """Connect the changes of pages."""
    site.connect("source-read", on_source)
    site.connect("include-read", on_include)
