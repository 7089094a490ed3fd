"""Sphinx configuration."""

from importlib.metadata import version as installed_version

project = "spatialsig"
author = "the spatialsig developers"
copyright = "2026, the spatialsig developers"
version = release = installed_version("spatialsig")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
nb_execution_mode = "off"  # notebooks are executed by `make test`
numpydoc_show_class_members = False
autosummary_generate = True
autodoc_typehints = "none"
html_theme = "sphinx_book_theme"
html_title = "spatialsig"
suppress_warnings = ["autosummary.import_cycle", "mystnb.unknown_mime_type"]
