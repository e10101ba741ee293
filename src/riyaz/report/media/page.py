"""The HTML file of a report: header, navigation, sections, and a content security policy without requests."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from riyaz.report.media.markup import Markup, element, join

Section = tuple[str, str, str, Markup | None]  # id, name in the navigation, heading, content


def page(
    title: str,
    head: Markup,
    sections: Sequence[Section],
    foot: str,
    *,
    style: Markup,
    script: Markup | None = None,
    data: Markup | None = None,
) -> str:
    """The whole HTML file; sections without content are left out.

    `data` is a JSON block for the `script`. The content security policy allows this style and this script by
    their hashes, and no request.
    """
    present = [section for section in sections if section[3]]
    body = join(
        element("a", "Skip to the content", class_="skip", href="#content"),
        head,
        element("nav", *(element("a", name, href=f"#{key}") for key, name, _, _ in present), aria_label="Contents"),
        element("main", *(_section(section) for section in present), id="content", tabindex="-1"),
        element("footer", element("p", foot)),
        element("script", data, type="application/json", id="examples-data") if data else None,
        element("script", script) if script else None,
    )
    first = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", style),
    )
    return f"<!doctype html>\n{element('html', first, element('body', body), lang='en')}\n"


def asset(name: str) -> Markup:
    """The text of a style sheet or script of this package."""
    return Markup(files("riyaz.report").joinpath(name).read_text(encoding="utf-8"))


def drawing(picture: Markup) -> str:
    """A picture of a page as the text of an SVG file, with the page's colours for light and dark themes."""
    head, _, body = picture.partition(">")
    width, height = head.partition('viewBox="0 0 ')[2].partition('"')[0].split()
    size = f'xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
    colours = asset("media/page.css").partition("* {")[0]
    style = f"{colours}svg {{ color: var(--ink); font-family: system-ui, sans-serif; }}"
    ground = f'<rect width="{width}" height="{height}" rx="8" fill="var(--paper)"/>'
    return f"{head.replace('<svg', f'<svg {size}', 1)}><style>{style}</style>{ground}{body}\n"


def tile(title: str, value: object, note: object) -> Markup:
    """One key figure: its title, its value and a note."""
    return element("div", element("dt", title), element("dd", element("b", value), element("span", note)))


def _section(section: Section) -> Markup:
    key, _, title, content = section
    return element("section", element("h2", title, id=f"{key}-title"), content, id=key, aria_labelledby=f"{key}-title")


def _policy(style: str, script: str | None) -> str:
    scripts = f"script-src 'sha256-{_hash(script)}'; " if script else ""
    return (
        f"default-src 'none'; style-src 'sha256-{_hash(style)}'; {scripts}img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
