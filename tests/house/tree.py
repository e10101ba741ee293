"""The tree of the repository, one line a file, from the first sentence of each: `make tree` writes docs/tree.md.

A Python file explains itself in its docstring, a file in C++ or TypeScript in its first comment; a folder in the
docstring of its `__init__.py` or in FOLDERS. tests/house/test_tree.py fails when the page is not current.
"""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = "docs/tree.md"
HEAD = """# The tree

Every folder in one line, then every file, in the file's own words. `make tree` writes this page.
"""
FOLDERS = {  # folders without a package's docstring
    "src/riyaz/serve/static": "The built page of `riyaz ui`, from page/.",
    "src/riyaz/serve/static/assets": "Its program, style and icon.",
    "src/riyaz/samples": "What the page shows at a first visit; examples/make_samples.py makes all of it.",
    "src/riyaz/limits/data": "Questions, pairs and wordings that `riyaz limits` asks.",
    "native": "The CPU engine in C++20; only its bindings know Python.",
    "native/engine": "The model that answers: weights, cache, passes, threads.",
    "native/training": "Operations of training over torch's tensors, cut into parts for all threads.",
    "native/kernels": "Compiled once for each instruction set, in a namespace of its own.",
    "native/kernels/products": "Packed weights times tokens: few or many, by codes or by tiles.",
    "native/kernels/attention": "Attention over the pages of the cache.",
    "native/kernels/training": "Attention, products and functions of training, forward and backward.",
    "native/simd": "16 floats as one value on each instruction set, and which set this CPU runs.",
    "native/bindings": "What Python may call: shapes are checked here.",
    "native/tests": "A program that compares the kernels of all instruction sets with plain loops: `make kernels`.",
    "native/tests/threads": "What threads do together, under ThreadSanitizer: `make threads`.",
    "native/fuzz": "Programs that libFuzzer feeds: `make fuzz-native`.",
    "native/fuzz/corpus": "Inputs with which they begin, and those that once failed.",
    "page/src": "The web page of `riyaz ui`; `make page` builds it into src/riyaz/serve/static.",
    "page/src/lesson": "The six stations, the game and the sheet of the screen Lesson.",
    "page/src/parts": "What the screens are made of.",
    "page/src/screens": "One file a screen.",
    "page/tests": "The page in a browser, from a real server with a tiny model: `make test-page`.",
    "benchmarks": "Riyaz beside its peers: each script prints a table and ends with one line of JSON.",
    "tests": "One folder for each room of src/riyaz, native/, the benchmarks and the house rules.",
    "tests/helpers": "What tests import: tiny models, fake results, a live server.",
    "tests/house": "The house rules and the documents.",
    "tests/base": "Files, folders, JSON, hardware, configuration, processes.",
    "tests/torture": "Commands that are killed at random moments, and end as those that nobody kills.",
    "tests/benchmarks": "The benchmarks on tiny models, and the figures of the guides.",
    "tests/native": "The C++ engine beside the torch engine and numpy, on every instruction set.",
    "tests/training": "The training loop, its kernels, and runs that stop and go on.",
    "tests/cli": "The command line and the library.",
    "tests/examples": "The rows of the examples, and the scripts that gather them.",
    "tests/site": "The documentation site: built, searched.",
    "tests/formats": "What earlier versions wrote opens: folders, checkpoints, collections.",
    "tests/formats/v0_1": "What riyaz 0.1 wrote with a tiny model; tests/formats/make_old.py makes all of it.",
    "tests/evaluate": "Scoring, and answering every row of a file.",
}
ONE_LINE = ("native/fuzz/corpus", "src/riyaz/samples", "tests/formats/v0_1")  # one line for all of their folders
PARTS = ("src/riyaz", "native", "page/src", "page/tests", "benchmarks", "tests")
COMMENT = {".cpp": "//", ".h": "//", ".inc": "//", ".ts": "//", ".tsx": "//"}


def first_sentence(text: str) -> str:
    """The first sentence of a text's first paragraph, without its full stop."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<!i\.e)(?<!et al)\. (?=[a-zA-Z`\d])", paragraph)[0].removesuffix(".")


def explanation(path: Path) -> str:
    """What a file says of itself, or ``."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return first_sentence(ast.get_docstring(ast.parse(text)) or "")
    mark, lines = COMMENT[path.suffix], []
    for line in text.splitlines():
        if not line.startswith(mark):
            break
        lines.append(line.removeprefix(mark).strip())
    if not lines and path.suffix == ".cpp" and path.with_suffix(".h").exists():
        return f"implements {path.stem}.h"
    return first_sentence("\n".join(lines))


def folder_line(root: Path, folder: str) -> str:
    """What a folder is, or ``."""
    package = root / folder / "__init__.py"
    if package.exists() and folder.startswith("src/riyaz"):
        return explanation(package)
    room = folder.removeprefix("tests/")
    tested = f"Tests of `riyaz.{room}`" if (root / "src/riyaz" / room).is_dir() else ""
    return FOLDERS.get(folder, tested).removesuffix(".")


def files(root: Path) -> dict[str, list[Path]]:
    """The folders of PARTS and the files of each that explain themselves, as git knows them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PARTS],
        cwd=root, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    folders: dict[str, list[Path]] = {}
    for name in sorted(listed):
        path = root / name
        if path.exists():
            whole = next((each for each in ONE_LINE if name.startswith(f"{each}/")), "")
            folder = folders.setdefault(whole or str(Path(name).parent), [])
            if path.suffix in {".py", *COMMENT} and path.name != "__init__.py" and "static" not in path.parts:
                folder.append(path)
    return folders


def render(root: Path) -> str:
    folders = files(root)
    lines = [HEAD, *(f"- `{folder}/`: {folder_line(root, folder)}" for folder in folders), ""]
    for folder, paths in folders.items():
        lines += [f"## {folder}/", ""] if paths else []
        lines += [f"- `{path.name}`: {explanation(path)}" for path in paths]
        lines += [""] if paths else []
    return "\n".join(lines).rstrip() + "\n"


def unexplained(root: Path) -> list[str]:
    """Folders and files that do not explain themselves."""
    folders = files(root)
    names = [f"{folder}/" for folder in folders if not folder_line(root, folder)]
    return names + [
        str(path.relative_to(root)) for paths in folders.values() for path in paths if not explanation(path)
    ]


if __name__ == "__main__":
    (ROOT / PAGE).write_text(render(ROOT), encoding="utf-8")
