"""The site: Sphinx reads the pages of this folder, and the library's docstrings. `make docs` builds it."""

import ast
import inspect
import re
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # `experiments` is imported from the clone

project = "ne_jax"
author = "The ne_jax authors"
copyright = author
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["results"]
myst_heading_anchors = 4
"""Headings get the anchors that code hosts give them, so that the same links work in both places."""

# Docstrings are Google's style, with Markdown's single backticks.
default_role = "code"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_custom_sections = [("Optional arguments of update", "params_style")]
maximum_signature_line_length = 80  # of more characters than this, an argument a line
add_module_names = False

html_theme = "furo"
html_title = "ne_jax"
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_sphinx = False
html_static_path, html_css_files = ["static"], ["site.css"]
pygments_style, pygments_dark_style = "friendly", "github-dark"

FROM_ROOT = {"contributing": "CONTRIBUTING.md", "changes": "CHANGELOG.md"}
"""Pages that are files of the root, where people look for them; in this folder stands a link for code hosts."""


def read_root_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the root's file in the place of the page, with its links as seen from here."""
    if page in FROM_ROOT:
        file = ROOT / FROM_ROOT[page]
        app.env.note_dependency(str(file))
        text = re.sub(r"\]\((?!\w+:|#)", "](../", file.read_text())
        for name, root in FROM_ROOT.items():
            text = text.replace(f"](../{root})", f"]({name}.md)")
        source[0] = text


def write_signature(_: Sphinx, what: str, __: str, thing: Any, *___: Any) -> tuple[str, str | None] | None:
    """A signature as it is written: `Float[Array, "batch units"]` is easier to read than what Python makes of it."""
    if what not in ("function", "method", "class"):
        return None
    (code,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))).body
    if isinstance(code, ast.FunctionDef):
        return f"({ast.unparse(code.args)})", ast.unparse(code.returns) if code.returns else None
    assert isinstance(code, ast.ClassDef)
    made = [each for each in code.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    if made:
        return None
    fields = [ast.unparse(each) for each in code.body if isinstance(each, ast.AnnAssign)]
    return f"({', '.join(fields)})", None


def setup(app: Sphinx) -> None:
    """What Sphinx calls first."""
    app.connect("autodoc-process-signature", write_signature)
    app.connect("source-read", read_root_page)
