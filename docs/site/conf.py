"""Settings of Sphinx for the site that `make site` builds; docs/site/build.py starts it."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "src")]

import menu  # noqa: E402
import sections  # noqa: E402
from pygments.lexers.special import TextLexer  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

import riyaz  # noqa: E402

project = "Riyaz"
version = release = riyaz.__version__
root_doc = menu.FRONT
extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
MENU = menu.read_menu()
include_patterns = [f"{menu.FRONT}.md", *(f"{page}.*" for part in MENU for page in part.every_page())]
later_pages = MENU[-1].every_page()  # for developers; the search shows them after the others
nitpicky = False  # types of other packages have no page here
myst_heading_anchors = 4
smartquotes = False
default_role = "literal"  # docstrings write `name` for code
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
pygments_style, pygments_dark_style = "friendly", "github-dark"

html_theme = "furo"
html_title = f"Riyaz {version}"
html_favicon = "../../page/src/icon.svg"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sphinx = False
html_show_copyright = False


def add_ranking(app: Sphinx, page: str, template: str, context: dict[str, object], tree: object) -> None:
    """Load the site's own ranking on the page of the search, after Sphinx's script."""
    if page == "search":
        app.add_js_file("sections.js", loading_method="defer")
        app.add_js_file("ranking.js", loading_method="defer")


def add_menu(app: Sphinx, page: str, source: list[str]) -> None:
    """Append the page's part of the menu to its Markdown."""
    source[0] = menu.with_menu(page, source[0], MENU)


def setup(app: Sphinx) -> None:
    """Have Sphinx call `add_menu` for every page that it reads; Pygments has no lexer for HAProxy's configuration."""
    app.add_lexer("haproxy", TextLexer)
    app.add_config_value("later_pages", [], "html")
    app.connect("source-read", add_menu)
    app.connect("html-page-context", add_ranking)
    app.connect("build-finished", sections.write_index)
