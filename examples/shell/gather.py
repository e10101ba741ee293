"""Options of shell commands and what they do, as rows: python examples/shell/gather.py [FOLDER]

The specifications of @withfig/autocomplete say what each option of a command does. A row asks for the command line by
that description; test rows ask for options that no training row has (slice "option"), or for learned ones in the words
of a user (slice "asked", from asked.jsonl). The whole specifications become documents. No command is ever run.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gathering import Row, apart, destination, npm_package, shuffled, write
from literals import largest

SPECS = ("@withfig/autocomplete", "2.692.3", "b07159ef0811bc8cec28e3a3016e6ba9568d774b75b8333dc6a5f2acf7d2c3af", "MIT")
PROGRAMS = (
    *("git", "tar", "docker", "ssh", "rsync", "curl", "grep", "npm", "pip", "cargo", "ls", "ps", "du", "wget", "scp"),
    *("make", "sort", "diff", "apt", "systemctl", "psql", "jq"),
)
SHORTEST, LONGEST = 2, 25  # words of a description
CUT = range(72, 80)  # characters at which git's descriptions are cut in the middle of a sentence
VAGUE = re.compile(
    r"(This|These|It|See|Same|Like|Inverse|Opposite|Synonym|Ignored|Deprecated|Implies|Similar|Alias)\b", re.IGNORECASE
)
HOST = re.compile(r"://|\.(io|org|com)\b|index-url")  # no text in this repository names a host of packages
MOST = 120  # rows of one program
TRAIN, OPTION = 1200, 200


def sentence(text: object) -> str:
    """The first sentence of a description, without its full stop; empty where it is cut, too short or too long, or
    says nothing without its neighbours."""
    if not isinstance(text, str):
        return ""
    text = re.sub(r" ?\(default[^)]*\)|^\([^)]*\) |^(This|The) (option|flag|switch) ", "", " ".join(text.split()))
    text = text[:1].upper() + text[1:]
    first = re.split(r"(?<!e\.g)(?<!i\.e)(?<!etc)(?<=[\w)\]'’])\. ", text)[0]
    cut = first == text and len(text) in CUT and text[-1:] != "."
    cut = cut or any(first.count(some) != first.count(other) for some, other in ("<>", "()", "[]"))
    use = not cut and not VAGUE.match(first) and SHORTEST <= len(first.split()) <= LONGEST
    return first.rstrip(". ") if use else ""


def commands(spec: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """A specification and all its subcommands, each with the words that call it."""
    names = spec["name"] if isinstance(spec["name"], list) else [spec["name"]]
    called = next((name for name in names if re.fullmatch(r"[a-z][a-z-]+", name)), None)  # not one of tar's letters
    path = (*path, called) if called else path
    yield path, spec
    for each in spec.get("subcommands") or []:
        if isinstance(each, dict) and each.get("name"):
            yield from commands(each, path)


def row(path: tuple[str, ...], option: dict[str, Any]) -> Row | None:
    """The row of an option; None where its description is of no use or names the option."""
    listed = option.get("name") if isinstance(option.get("name"), list) else [option.get("name")]
    names = [name for name in listed or [] if isinstance(name, str) and re.fullmatch(r"--?[\w.-]*\w", name)]
    said = sentence(option.get("description"))
    if not names or not said or any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", said) for name in names):
        return None
    values = option.get("args") if isinstance(option.get("args"), list) else [option.get("args")]
    value = values[0].get("name") if isinstance(values[0], dict) and not values[0].get("isOptional") else None
    if isinstance(values[0], dict) and value is None and not values[0].get("isOptional"):
        return None  # a value without a name
    if value and not re.fullmatch(r"[A-Za-z][\w-]*", value):
        return None
    names.sort(key=len, reverse=True)
    joined = [f"{name} {value}" for name in names] if value else names
    if value and names[0].startswith("--"):
        together = f"{names[0]}={value}"
        joined = [together, *joined] if option.get("requiresSeparator") else [*joined, together]
    lines = [" ".join((*path, each)) for each in joined]
    prompt = f"{' '.join(path)}: {said}" + (f" (value: {value})" if value else "")
    if HOST.search(f"{prompt} {lines[0]}"):
        return None
    return {"prompt": prompt, "answer": lines[0], "references": lines[1:]}


def rows(spec: dict[str, Any]) -> list[Row]:
    """The rows of a program. Where options have one description, each is an answer; where only the first sentences of
    their descriptions are alike, there is no row."""
    found: dict[str, list[Row]] = {}
    whole: dict[str, set[str]] = {}
    for path, each in commands(spec):
        told = sentence(each.get("description"))
        called = {"prompt": f"{path[0]}: {told}", "answer": " ".join(path), "references": []}
        made = [(called, each)] if len(path) > 1 and told and not HOST.search(told) else []
        options = [option for option in each.get("options") or [] if isinstance(option, dict)]
        made += [(asked, option) for option in options if (asked := row(path, option))]
        for asked, source in made:
            key = asked["prompt"].casefold()
            found.setdefault(key, []).append(asked)
            whole.setdefault(key, set()).add(" ".join(str(source["description"]).split()).rstrip("."))
    return [_joined(alike) for key, alike in found.items() if len(whole[key]) == 1]


def _joined(alike: list[Row]) -> Row:
    """One row with the answers of rows that ask the same."""
    lines = list(dict.fromkeys(line for each in alike for line in (each["answer"], *each["references"])))
    return alike[0] | {"answer": lines[0], "references": lines[1:]}


def document(program: str, found: list[Row]) -> str:
    """The rows of a program as a page."""
    lines = (f"- `{each['answer']}`: {each['prompt'].partition(': ')[2]}" for each in found)
    return f"# {program}\n\n" + "\n".join(lines) + "\n"


def deal(found: dict[str, list[Row]], asked: list[Row]) -> tuple[list[Row], list[Row]]:
    """The training rows and the test rows. Options that `asked` names are learned by their description and tested in
    its words; others are learned or tested. Ends the program where `asked` names an option that is not there."""
    known = {line: each for part in found.values() for each in part for line in (each["answer"], *each["references"])}
    missing = [each["answer"] for each in asked if each["answer"] not in known]
    if missing:
        sys.exit(f"error: asked.jsonl names what no specification has: {', '.join(missing)}")
    learned = {known[each["answer"]]["prompt"]: known[each["answer"]] for each in asked}
    some = (each for part in found.values() for each in shuffled(part)[:MOST])
    others = shuffled([each for each in some if each["prompt"] not in learned])
    option = [each | {"slice": "option"} for each in others[:OPTION]]
    own = [known[each["answer"]] | {"prompt": each["prompt"], "slice": "asked"} for each in asked]
    train = [*learned.values(), *apart(others[OPTION:], option)[: TRAIN - len(learned)]]
    return shuffled(train), shuffled(option + own)


def main() -> None:
    """Fetch the specifications and write train.jsonl, test.jsonl and docs/."""
    out = destination(__file__, __doc__).out
    package = npm_package(*SPECS)
    found: dict[str, list[Row]] = {}
    for program in PROGRAMS:
        file = package.extractfile(f"package/build/{program}.js")
        found[program] = rows(largest(file.read().decode("utf-8"), program)) if file else []
    lines = Path(__file__).with_name("asked.jsonl").read_text(encoding="utf-8").splitlines()
    train, test = deal(found, [json.loads(line) for line in lines])
    write(__file__, out, train=train, test=test)
    (out / "docs").mkdir(exist_ok=True)
    for program, each in found.items():
        (out / "docs" / f"{program}.md").write_text(document(program, each), encoding="utf-8")
    print(f"{out / 'docs'}: {len(found)} pages, {sum(map(len, found.values())):,} options and subcommands")


if __name__ == "__main__":
    main()
