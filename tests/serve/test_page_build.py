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

import pytest

ROOT = Path(__file__).parents[2]
SOURCE, BUILT = ROOT / "page", ROOT / "src/riyaz/serve/static"
LEFT_OUT = {"node_modules", "tests"}
OWN = "built.sha256"  # names every built file but itself
# bytes after gzip; the others than page.js are loaded when a screen, a part, a sample or a word's text is shown first
MOST = {
    "page.js": 90_000, "decide.js": 12_000, "inside.js": 12_000, "learned.js": 8_000, "columns.js": 2_000,
    "samples.js": 3_000, "glossary.js": 4_000, "page.css": 12_000,
}  # fmt: skip


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
    assert len(made) == 4 + len(MOST)


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


@pytest.mark.parametrize("name", MOST)
def test_the_page_is_small(name: str) -> None:
    size = len(gzip.compress((BUILT / "assets" / name).read_bytes(), 9, mtime=0))
    assert size <= MOST[name], f"{name}: {size:,} bytes after gzip"


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
