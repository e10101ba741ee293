"""The documents say what is there: commands, the tree of the architecture, paths, links, the version.

The checks are functions of a repository root (and of the command line's help), so that each is also shown
red on a small repository. tests/house/test_readme.py runs the README's commands.
"""

import json
import re
import shlex
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import cache
from pathlib import Path

import fake_page
import house_rules
import pytest
from tiny_comparison import command

ROOT = Path(__file__).parents[2]
ARCHITECTURE = "docs/architecture.md"
PICTURE = ROOT / "docs/pictures/comparison.svg"
COMMANDS = {
    *("pull", "models", "doctor", "completion", "data", "compare", "report", "adapt", "evaluate", "limits", "run"),
    *("chat", "generate"),
    *("predict", "inside", "decide", "serve", "ui", "rag", "merge", "export", "card", "quantize", "tokenizer"),
    *("pretrain", "ternarize", "blend", "distil", "join", "verify"),
}
LOG_WORDS, CHANGELOG_LINES = 60, 18  # of an entry, and of a version
SET_UP = {"git", "cd", "source"}  # what a README may say beside riyaz, make and python

Help = Callable[..., str]


@cache
def help_of(*verb: str) -> str:
    """What `riyaz VERB --help all` prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        told = command(*verb, "--help", "all")
    assert told.status == 0, told.err
    return told.out


def verbs(text: str) -> set[str]:
    """The commands that a help text lists."""
    return set(re.findall(r"^(?:│ |  )([a-z][a-z-]*) {2,}\S", text, re.MULTILINE))


def documents(root: Path) -> list[Path]:
    """The documents of a repository, README first."""
    found = [root / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    found += [*(root / "docs").rglob("*.md"), *(root / "examples").rglob("*.md")]
    return [path for path in found if path.exists()]


def shell_lines(text: str) -> list[str]:
    """Commands of the fenced bash blocks: continued lines joined, prompts and comments removed."""
    lines = []
    for block in re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words:
                lines.append(shlex.join(words))
    return lines


def undocumented(root: Path, commands: set[str]) -> list[str]:
    """Commands that neither the README nor docs/reference.md shows as `riyaz COMMAND`."""
    pages = [root / "README.md", root / "docs/reference.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages if page.exists())
    return [name for name in sorted(commands) if not re.search(rf"\briyaz {name}(?![\w-])", text)]


def wrong_commands(root: Path, help_text: Help) -> list[str]:
    """Commands in any document that name a verb, option, make target or script that is not there."""
    makefile = root / "Makefile"
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile.read_text(), re.MULTILINE)) if makefile.exists() else set()
    problems = []
    for page in documents(root):
        for line in shell_lines(page.read_text(encoding="utf-8")):
            words = [word for word in shlex.split(line) if "=" not in word.split("/")[0] or word.startswith("-")]
            problem = wrong(words, root, help_text, targets)
            if problem:
                problems.append(f"{page.relative_to(root)}: `{line}`: {problem}")
    return problems


def wrong(words: list[str], root: Path, help_text: Help, targets: set[str]) -> str:
    """What is wrong with one command, or ``."""
    name, rest = Path(words[0]).name, words[1:]
    if name == "riyaz":
        verb = next((word for word in rest if not word.startswith("-")), "")
        if verb and verb not in verbs(help_text()):
            return f"no command {verb}"
        words = [verb] if verb else []
        inner = rest[rest.index(verb) + 1 :][:1] if verb else []
        if verbs(help_text(*words)).issuperset(inner):
            words += inner
        known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", help_text(*words)))
        unknown = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)} - known - {"--help"}
        return f"no option {', '.join(sorted(unknown))}" if unknown else ""
    if name == "make":
        missing = [word for word in rest if word not in targets]
        return f"no target {missing[0]}" if missing else ""
    if re.match(r"python[\d.]*$", name):
        script = root / rest[0] if rest else root
        if rest[:1] == ["-m"] or not script.is_file():
            return "" if rest[:2] == ["-m", "pytest"] else "no such script"
        unknown = {word for word in rest if word.startswith("--") and word not in script.read_text()}
        return f"no option {', '.join(sorted(unknown))}" if unknown else ""
    return "" if name in SET_UP else f"{name} is none of riyaz, make, python, {', '.join(sorted(SET_UP))}"


def broken_references(root: Path) -> list[str]:
    """Relative links, and paths in backticks, that lead nowhere."""
    problems = []
    for page in documents(root):
        text = page.read_text(encoding="utf-8")
        links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
        paths = re.findall(r"`((?:src|tests|docs|examples|benchmarks|\.ci)/[\w./-]+)`", text)
        lost = [link for link in links if link and not (page.parent / link).exists()]
        lost += [path for path in paths if not (root / path).exists()]
        problems += [f"{page.relative_to(root)}: {name} is not there" for name in lost]
    return problems


def log_problems(text: str, root: Path, help_text: Help) -> list[str]:
    """Entries of docs/log.md that are not as its head says: two lines, few words, a command that exists or (unkept)."""
    body = text.split("\n---\n", 1)[-1].strip().splitlines()
    entries = [line for line in body if line]
    problems = [] if entries else ["no entries"]
    for first, second in zip(entries[::2], [*entries[1::2], ""], strict=False):
        result, *fields = second.rsplit(" · ", 2)
        if not re.match(r"- \d{4}-\d\d-\d\d · \S", first) or not re.match(r"  \S", result) or len(fields) != 2:
            problems.append(f"not an entry of two lines: {first[:60]}")
            continue
        if (words := len(re.findall(r"\S*\w\S*", f"{first} {second}"))) > LOG_WORDS:
            problems.append(f"{words} words > {LOG_WORDS}: {first[:60]}")
        spans = [re.search(r"(?<!\S)(?:riyaz |benchmarks/).*", span) for span in re.findall(r"`([^`]+)`", fields[0])]
        lines = [span[0].replace("benchmarks/", "python benchmarks/") for span in spans if span]
        told = [wrong(shlex.split(line), root, help_text, set()) for line in lines]
        if "(unkept)" not in fields[0] and (not told or any(told)):
            problems.append(f"no command that exists, and not (unkept): {first[:60]} {told}")
    return problems


def changelog_problems(text: str) -> list[str]:
    """Why a changelog is no short list of what a user sees."""
    lines = [line for line in text.splitlines() if line.strip()]
    problems = [f"{len(line)} characters: {line[:60]}" for line in lines if len(line) > 120]
    for version in text.split("\n## ")[1:]:
        name, *below = [line for line in version.splitlines() if line.strip()]
        problems += [f"{name}: {len(below)} lines > {CHANGELOG_LINES}"] * (len(below) > CHANGELOG_LINES)
    return problems


def test_help_lists_the_commands_and_each_explains_itself() -> None:
    assert verbs(help_of()) == COMMANDS
    for name in sorted(COMMANDS):
        assert f"riyaz {name}" in help_of(name)


def test_every_command_is_documented() -> None:
    assert undocumented(ROOT, verbs(help_of())) == []


def test_commands_in_documents_exist() -> None:
    assert shell_lines((ROOT / "README.md").read_text(encoding="utf-8")), "README shows no commands"
    problems = wrong_commands(ROOT, help_of)
    assert not problems, "\n" + "\n".join(problems)


def test_the_page_has_the_rows_that_the_house_rules_keep() -> None:
    page = (ROOT / ARCHITECTURE).read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\d) \| (.+?) \|", page, re.MULTILINE))
    for place, sides in enumerate(house_rules.ROWS):
        said = [re.findall(r"`(\w+)`", side) for side in [*rows[str(place)].split(" · "), ""][:2]]
        for names, listed in zip(sides, said, strict=True):
            kept = [name for name in names if name != "__main__"]
            assert [name for name in listed if name in kept] == kept, f"row {place}"


def test_the_architecture_is_short_and_has_a_glossary() -> None:
    page = (ROOT / ARCHITECTURE).read_text(encoding="utf-8")
    assert len(page.splitlines()) < 350
    words = page.partition("## Words")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\| [\w, ]+ \| \S", words, re.MULTILINE)) > 25


def test_links_and_paths_lead_somewhere() -> None:
    problems = broken_references(ROOT)
    assert not problems, "\n" + "\n".join(problems)


def test_the_log_has_short_entries_with_commands_that_exist() -> None:
    problems = log_problems((ROOT / "docs/log.md").read_text(encoding="utf-8"), ROOT, help_of)
    assert not problems, "\n" + "\n".join(problems)


def test_the_changelog_is_short() -> None:
    assert changelog_problems((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")) == []


def test_changelog_and_package_have_one_version() -> None:
    from riyaz import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    heads = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert project["version"] == __version__ == heads[0]


def test_the_readme_says_how_riyaz_gets_on_the_path_before_its_first_command() -> None:
    lines = shell_lines((ROOT / "README.md").read_text(encoding="utf-8"))
    first = next(place for place, line in enumerate(lines) if line.startswith("riyaz "))
    assert "source .venv/bin/activate" in lines[:first]


def test_the_readme_picture_is_drawn_from_a_comparison_and_runs_nothing(tmp_path: Path) -> None:
    document, out = fake_page.rich(), tmp_path / "picture.svg"
    (tmp_path / "compare.json").write_text(json.dumps(document))
    script = [sys.executable, str(PICTURE.with_suffix(".py")), str(tmp_path), "--out", str(out)]
    subprocess.run(script, check=True, capture_output=True)
    for path in (out, PICTURE):
        nodes = list(ET.fromstring(path.read_text(encoding="utf-8")).iter())
        assert not [
            node.tag for node in nodes if node.tag.endswith("}script") or any("://" in v for v in node.attrib.values())
        ]
    said = "".join(ET.fromstring(out.read_text(encoding="utf-8")).itertext())
    assert all(method in said for method in fake_page.METHODS)


def test_hints_name_extras_that_the_demo_installs() -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    hinted = {name for text in sources for name in re.findall(r"""\b(?:install|require)\(["'](\w+)["']""", text)}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    demo = re.findall(r"^EXTRAS := ([\w,]+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split(",")
    # `train` includes `compare`; `parquet` is the old name of `data`, and every installation has what `serve` had; no
    # command of riyaz needs lm-eval, and one machine needs no ray; `site` builds the documentation
    assert "riyaz[compare]" in extras["train"]
    unneeded = {"test", "parquet", "serve", "lm-eval", "site", "wheels"}
    assert hinted - {"compare", "ray"} == set(demo) == extras.keys() - unneeded - {"compare", "ray"}


FAKE_HELP = {
    (): "  data  look\n  compare  all\n  --help  this",
    ("data",): "--json -n",
    ("compare",): "--budget",
}


def repository(folder: Path, files: dict[str, str]) -> Path:
    base = {
        "Makefile": "demo: x\n",
        "src/riyaz/__init__.py": "",
        "src/riyaz/errors.py": "",
        "src/riyaz/data/__init__.py": "",
        "src/riyaz/data/split.py": "",
    }
    for name, text in (base | files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("riyaz data x.jsonl --json -n 3", ""),
        ("RIYAZ_HOME=/x .venv/bin/riyaz compare x --budget=1m  # a comment", ""),
        ("riyaz compare a \\\n  --budgt 3m", "no option --budgt"),
        ("riyaz compere a", "no command compere"),
        ("make demo", ""),
        ("$ make dmeo", "no target dmeo"),
        ("python benchmarks/nothing.py", "no such script"),
        ("python src/riyaz/errors.py --peer", "no option --peer"),
        ("git clone x", ""),
        ("curl x", "curl is none of"),
    ],
)
def test_a_wrong_command_is_seen(tmp_path: Path, line: str, says: str) -> None:
    root = repository(tmp_path, {"docs/guide.md": f"Do\n```bash\n{line}\n```\n"})
    problems = wrong_commands(root, lambda *verb: FAKE_HELP[verb])
    assert says in "\n".join(problems) if says else problems == []


def test_an_undocumented_command_is_seen(tmp_path: Path) -> None:
    root = repository(tmp_path, {"README.md": "`riyaz data FILE`", "docs/reference.md": "`riyaz run-all`"})
    assert undocumented(root, {"data", "run"}) == ["run"]


def test_a_broken_reference_is_seen(tmp_path: Path) -> None:
    text = "[a](docs/no.md#x) [b](Makefile) [c](https://example.org) `src/riyaz/no.py` `src/riyaz/errors.py`"
    problems = broken_references(repository(tmp_path, {"README.md": text}))
    assert [problem.split(": ")[1].split()[0] for problem in problems] == ["docs/no.md", "src/riyaz/no.py"]


def test_a_bad_log_entry_is_seen(tmp_path: Path) -> None:
    root = repository(tmp_path, {"benchmarks/speed.py": "add('--peer')"})
    good = "# Log\n\n---\n\n- 2026-11-25 · tried it\n  10 · 10⁹ · `benchmarks/speed.py --peer` · AMD\n"
    bad = {
        "not an entry": good + "- 2026-11-25 · tried more\n",
        "no command": good.replace("`benchmarks/speed.py --peer`", "by hand"),
        "no such script": good.replace("speed.py", "gone.py"),
        "no option --pier": good.replace("--peer", "--pier"),
        "no command tried": good.replace("benchmarks/speed.py", "riyaz tried"),
        f"{LOG_WORDS + 6} words": good.replace("tried it", "word " * LOG_WORDS),
        "no entries": "# Log\n---\n",
    }
    for says, text in bad.items():
        assert says in "\n".join(log_problems(text, root, lambda *verb: FAKE_HELP[verb])), says
    for text in (good, good.replace("`benchmarks/speed.py --peer`", "`train` (unkept)")):
        assert log_problems(text, root, lambda *verb: FAKE_HELP[verb]) == []


def test_a_long_changelog_is_seen() -> None:
    good = "# Changelog\n\n## 0.1.0\n\n" + "- a line\n" * CHANGELOG_LINES + "\n## 0.0.1\n\n- a line\n"
    assert changelog_problems(good) == []
    longer = good.replace("- a line\n", "- a line\n- one more\n", 1)
    assert changelog_problems(longer) == [f"0.1.0: {CHANGELOG_LINES + 1} lines > {CHANGELOG_LINES}"]
    assert changelog_problems(good.replace("a line", "a" * 120, 1)) == [f"122 characters: - {'a' * 58}"]
