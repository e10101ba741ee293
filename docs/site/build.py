"""Builds the documentation site into build/site with Sphinx, and llms.txt beside it: `make site`.

    python docs/site/build.py [--out build/site] [--url https://example.org/riyaz]

Every warning of Sphinx is an error, so every link to a page, a heading or a file of the repository leads somewhere.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

from menu import FRONT, ROOT, read_menu
from sphinx.cmd.build import build_main

LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
URL = re.compile(r"https?://[\w.-]+(?:/[\w./-]*)?")
SENTENCE = re.compile(r"(?<!i\.e)(?<!et al)(?<=[.:?!]) (?=[A-ZÀ-Ž`\d])")


def main() -> int:
    """Build the site and print where it is; returns the exit status: 1 after a warning, 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build/site", help="folder of the site, made anew")
    parser.add_argument("--url", default="", help="address at which the site will be found, for llms.txt")
    options = parser.parse_args()
    if options.url and not URL.fullmatch(options.url):
        parser.error(f"--url {options.url!r} is no address; write it as https://example.org/riyaz")
    if options.out.exists() and not (options.out / "searchindex.js").exists():
        parser.error(f"--out {options.out} is there and holds no site; remove it or name another folder")
    site, work = options.out, options.out.with_name(f"{options.out.name}-work")
    for folder in (site, work):
        shutil.rmtree(folder, ignore_errors=True)
    stage(work / "source")
    status = build_main(["-q", "-W", "--keep-going", "-b", "html", "-c", str(ROOT / "docs/site"),
                         "-d", str(work / "read"), str(work / "source"), str(site)])  # fmt: skip
    shutil.rmtree(work)
    shutil.rmtree(site / ".doctrees", ignore_errors=True)
    (site / ".buildinfo").unlink(missing_ok=True)
    if status:
        print("error: the site has warnings; each is a line above", file=sys.stderr)
        return 1
    (site / "llms.txt").write_text(llms_text(options.url.rstrip("/")), encoding="utf-8")
    print(site / "index.html")
    return 0


def stage(source: Path) -> None:
    """Make the folder that Sphinx reads: the pages, README.md as the first of them, and the files that they link to."""
    pages = [path for part in read_menu() for name in part.every_page() for path in ROOT.glob(f"{name}.[mr][ds]*")]
    for page in (ROOT / "README.md", *pages):
        links = LINK.findall(page.read_text(encoding="utf-8")) if page.suffix == ".md" else []
        for path in (page, *((page.parent / link).resolve() for link in links)):
            name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
            if name and path.is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, source / name)
    (source / "README.md").rename(source / f"{FRONT}.md")


def llms_text(url: str = "") -> str:
    """The text of llms.txt: one line a page, with its address below `url`, its title and its first sentence."""
    title, sentence = head_of(ROOT / "README.md")
    lines = [f"# {title}", "", f"> {sentence}"]
    prefix = f"{url}/" if url else ""
    for part in read_menu():
        lines += ["", f"## {part.title}", ""]
        for page in part.every_page():
            path = next(ROOT / f"{page}{ending}" for ending in (".md", ".rst") if (ROOT / f"{page}{ending}").exists())
            title, sentence = head_of(path)
            lines.append(f"- [{title}]({prefix}{page}.html): {sentence}")
    return "\n".join(lines) + "\n"


def head_of(path: Path) -> tuple[str, str]:
    """The title of a page and its first sentence, or else the first point of a list, without the markup of links."""
    paragraphs = [" ".join(part.split()) for part in path.read_text(encoding="utf-8").split("\n\n")]
    title = paragraphs[0].removeprefix("# ").partition(" ==")[0]
    texts = [words for words in paragraphs[1:] if words[0].isalnum() or words[0] in "`["]
    text = (texts or [words.removeprefix("- ") for words in paragraphs if words.startswith("- ")])[0]
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r":doc:`([^<`]*?)(?: <[^>]*>)?`", r"\1", text).replace("``", "`")
    return title, SENTENCE.split(text)[0]


if __name__ == "__main__":
    sys.exit(main())
