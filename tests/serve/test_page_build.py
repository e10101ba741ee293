"""The page that the package carries: it is the build of page/, small enough, asks no other origin, names its licences.

No Node is needed: the build writes the hashes of its source and of what it made, and this file hashes both again. So
neither was changed after the build. That the one really makes the other, `make page-same` says, which builds again.
"""

import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE, BUILT = ROOT / "page", ROOT / "src/riyaz/serve/static"
LEFT_OUT = {"node_modules", "tests"}
OWN = "built.sha256"  # names every built file but itself
FIRST = 90_000  # bytes after gzip of page.js and of what it imports at once
LATER = 13_000  # and of each file that the browser loads with a screen, a part, a sample or a word's text
STYLES = 12_000


class Tags(HTMLParser):
    """Collects (tag, attributes) and the text within scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Note what stands directly in a script or style."""
        if self.tags and self.tags[-1][0] in ("script", "style"):
            self.inline += data.strip()


def hashes(folder: Path) -> list[str]:
    """One line for each source file, as the build writes them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in files}
    kept = sorted(name for name in names if not LEFT_OUT & set(name.split("/")))
    return [f"{hashlib.sha256(names[name].read_bytes()).hexdigest()}  {name}" for name in kept]


def test_the_committed_build_is_the_build_of_the_source() -> None:
    built = (BUILT / "source.sha256").read_text().splitlines()
    assert hashes(SOURCE) == built, "the source changed after the build: run `make page` and commit the result"
    assert len(built) > 20


def test_no_built_file_was_changed_after_the_build() -> None:
    made = [line for line in hashes(BUILT) if not line.endswith(f"  {OWN}")]
    assert made == (BUILT / OWN).read_text().splitlines(), "a built file was changed: run `make page`, commit all of it"


def test_a_changed_a_new_and_a_removed_file_are_seen(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.ts").write_text("1")
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules/b.js").write_text("1")
    first = hashes(tmp_path)
    assert [line.split("  ")[1] for line in first] == ["src/a.ts"]
    (tmp_path / "src/a.ts").write_text("2")
    assert hashes(tmp_path) != first
    (tmp_path / "src/b.ts").write_text("1")
    assert len(hashes(tmp_path)) == 2


def zipped(name: str) -> int:
    """Bytes of a built file after gzip."""
    return len(gzip.compress((BUILT / "assets" / name).read_bytes(), 9, mtime=0))


def imported(name: str) -> set[str]:
    """A built script and all that it imports at once, not on demand."""
    own = re.findall(r'(?:from|import)"\./([\w-]+\.js)"', (BUILT / "assets" / name).read_text())
    return {name}.union(*map(imported, own))


def test_the_page_is_small() -> None:
    first = imported("page.js")
    sizes = {path.name: zipped(path.name) for path in (BUILT / "assets").glob("*.js")}
    assert {"lesson.js", "inside.js", "glossary.js"} <= sizes.keys() - first, "they are loaded on demand"
    assert sum(sizes[name] for name in first) <= FIRST, first
    assert {name: size for name, size in sizes.items() if name not in first and size > LATER} == {}
    assert zipped("page.css") <= STYLES


def test_the_document_has_nothing_inline_and_loads_from_its_own_server_only() -> None:
    tags = Tags()
    tags.feed((BUILT / "index.html").read_text())
    assert tags.inline == ""
    loaded = [value for _, attributes in tags.tags for name, value in attributes.items() if name in ("src", "href")]
    assert sorted(value or "" for value in loaded) == ["/assets/icon.svg", "/assets/page.css", "/assets/page.js"]
    names = {name for _, attributes in tags.tags for name in attributes}
    assert "style" not in names and not any(name.startswith("on") for name in names)


def test_the_styles_load_nothing() -> None:
    styles = (BUILT / "assets/page.css").read_text()
    assert "url(" not in styles and "@import" not in styles


def test_every_package_in_the_page_is_named_with_its_licence() -> None:
    notices = (BUILT / "THIRD-PARTY.txt").read_text()
    lock = json.loads((SOURCE / "package-lock.json").read_text())["packages"]
    shipped = {
        name: each
        for name, each in lock.items()
        if name and not each.get("dev") and "@types/" not in name  # types are no part of the build
    }
    assert len(shipped) >= 6
    for name, each in shipped.items():
        version = f"{name.removeprefix('node_modules/')} {each['version']} ({each['license'].strip('()')}"
        assert version in notices.replace("((", "("), version
        assert re.search(r"MIT|Apache-2\.0", each["license"]), f"{name}: {each['license']} is not permissive"


def test_the_lock_names_no_registry_and_runs_no_script() -> None:
    lock = (SOURCE / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert "ignore-scripts=true" in (SOURCE / ".npmrc").read_text()
