"""Shell commands compared by their words, never run: the order of options counts where a program acts on it."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from riyaz.metrics.structured import unfenced

MOST_OPTIONS = 8  # different options of a command of which every set is tried as those that take a value
PROMPT = re.compile(r"\A\s*\$\s+")  # the sign before a command in documents
CODE = re.compile(r"`([^`]++)`")
OPERATOR = r"&>>|<<<|<<-|&&|&>|\|\||\|&|;;|<<|<&|<>|>>|>&|>\||[|&;<>()\n]"
# the parts of a line: blanks, what quotes or a backslash protect, and everything else letter by letter
PART = re.compile(
    r"(?P<blank>[ \t]++)|(?P<joined>\\\n)"
    rf"|(?P<operator>(?:(?<![^ \t\n|&;<>()])[0-9]++(?=[<>]))?+(?:{OPERATOR}))"
    r"|'(?P<single>[^']*+)'"
    r'|"(?P<double>(?:[^"\\]|\\.)*+)"'
    r"|\\(?P<escaped>.)|(?P<plain>[^'\"\\])",
    re.DOTALL,
)
ACTIVE = "\0"  # stands in a word before a sign that means more to a shell than itself
MEANING, MEANING_FIRST = frozenset("*?[$`{"), frozenset("~#")  # outside quotes: anywhere, at a word's beginning
IN_QUOTES = re.compile(r"""\\([$`"\\])|([$`])|\\\n""")  # between double quotes: protected, meant, a joined line
BRACE = ACTIVE + "{"
BEFORE_PROGRAM = re.compile(r"!|\0?\{|if|then|elif|else|while|until|do|[A-Za-z_]\w*+\+?=.*+", re.DOTALL)
ORDERED = frozenset(("convert", "ffmpeg", "find", "magick", "mogrify", "sox"))  # act on their words in their order
# programs whose later words are the command line of another one
_CARRYING = """bash builtin busybox caffeinate chroot chrt command dash doas docker docker-compose entr env exec fish
flock ionice java ltrace nerdctl nice node nohup npx nsenter numactl parallel perl php podman python python3 ruby
runuser setsid sh srun ssh stdbuf strace su sudo systemd-run taskset time timeout unshare uvx watch xargs zsh"""
CARRYING = frozenset(_CARRYING.split())
CLUSTER = re.compile("-[A-Za-z]{2,}+")  # letters behind one dash, each an option
# the letters that take what follows them as their value, of programs in which they often end a cluster
TAKING = {
    "curl": "AbcdDeEFHKmoPQrtTuUwxXyYz", "git": "bBcCFm", "grep": "ABCdDefm", "sort": "koStT", "tar": "bCfFgHIKLNTVX",
    "wget": "aABDeiIloOPQRtTUwX",
}  # fmt: skip


def command(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction is an accepted command, word for word as a shell splits it, apart from the order of options
    and of the letters behind one dash (`-al`). How a word is quoted does not count, but what that changes does: `*.txt`
    is not `'*.txt'`, and `"$x"` is `$x`.

    Words without a dash keep their order, and an option keeps its value. Which options take one is not known: two
    commands are equal if they are for some set of options that do. Options of `git` stay on their side of the
    subcommand, those of CARRYING between the same words, and of ORDERED every word keeps its place. A text that a shell
    cannot split is no command.
    """
    words = split(prediction)
    return float(words is not None and any(_equal(words, split(answer)) for answer in answers))


def split(text: str) -> list[list[str]] | None:
    """The words of each command of a text, its operators as commands of one word, a new line as `;`; None for a text
    with open quotes. Signs with a meaning have ACTIVE before them. A fenced block, single backticks around the text, a
    leading `$ ` and a last `;` are taken off."""
    line = unfenced(text).strip()
    line = code[1] if (code := CODE.fullmatch(line)) else line
    line = PROMPT.sub("", line.strip()).replace(ACTIVE, "\ufffd").replace("\r\n", "\n")
    commands: list[list[str]] = [[]]
    word: list[str] | None = None  # the parts of the word that is being read
    place = 0
    while place < len(line):
        part = PART.match(line, place)
        if part is None:
            return None
        place = part.end()
        if part.lastgroup == "joined":
            continue
        if part.lastgroup not in ("blank", "operator"):
            first = word is None
            word = word or []
            word.append(_meant(part, first))
            continue
        if word is not None:
            commands[-1].append(_word(word))
            word = None
        operator = part["operator"]
        if operator == "\n" and (commands[-1] or commands[-2:-1] == [[")"]]):
            operator = ";"
        if operator and operator != "\n":  # behind an operator a new line changes nothing
            commands += [[operator], []]
    if word is not None:
        commands[-1].append(_word(word))
    return commands[:-2] if commands[-2:] == [[";"], []] and commands[-3] else commands


def _word(parts: list[str]) -> str:
    """A word of its parts, in which ACTIVE is left before a brace that opens a list or is the whole word."""
    word = "".join(parts).replace(f"{ACTIVE}${BRACE}", f"{ACTIVE}${{")
    inside = word.rpartition("}")[0].partition(BRACE)[2]
    return word if word == BRACE or "," in inside or ".." in inside else word.replace(BRACE, "{")


def _meant(part: re.Match[str], first: bool) -> str:
    """A part of a word without its quotes, with ACTIVE before every sign that a shell would still act on."""
    if part["single"] is not None:
        return part["single"]
    if part["double"] is not None:
        return IN_QUOTES.sub(lambda each: each[1] or (ACTIVE + each[2] if each[2] else ""), part["double"])
    if part["escaped"] is not None:
        return part["escaped"]
    sign = part["plain"]
    return ACTIVE + sign if sign in MEANING or (first and sign in MEANING_FIRST) else sign


def _equal(some: list[list[str]], others: list[list[str]] | None) -> bool:
    return others is not None and len(some) == len(others) and all(map(_equal_command, some, others))


def _equal_command(some: list[str], others: list[str]) -> bool:
    if some == others:
        return True
    place = next((number for number, word in enumerate(some) if not BEFORE_PROGRAM.fullmatch(word)), 0)
    program, *later = [word.rpartition("/")[2] for word in some[place:]] or [""]
    if program in ORDERED or (program in CARRYING and not ORDERED.isdisjoint(later)):
        return False
    most = len(some) if program in CARRYING else place + 1 + (program == "git")
    if program not in CARRYING:
        some, others = _sorted_letters(some, program), _sorted_letters(others, program)
    if Counter(some) != Counter(others):
        return False
    options = sorted({word for word in some if _is_option(word)})
    counts = range(len(options) + 1) if len(options) <= MOST_OPTIONS else (0, len(options))
    taking = (set(chosen) for count in counts for chosen in combinations(options, count))
    return any(_parts(some, valued, most) == _parts(others, valued, most) for valued in taking)


def _sorted_letters(words: list[str], program: str) -> list[str]:
    """The words with the letters of each cluster before `--` sorted, up to the first that takes a value."""
    end = words.index("--") if "--" in words else len(words)
    return [_sorted_cluster(word, TAKING.get(program, "")) for word in words[:end]] + words[end:]


def _sorted_cluster(word: str, taking: str) -> str:
    if not CLUSTER.fullmatch(word):
        return word
    end = next((number for number, letter in enumerate(word) if letter in taking), len(word))
    return "-" + "".join(sorted(word[1:end])) + word[end:]


Option = tuple[int, str] | tuple[int, str, str]  # the number of other words before it, its name, its value


def _parts(words: list[str], valued: set[str], most: int) -> tuple[Counter[Option], list[str]]:
    """The options of a command, each with the number of other words before it up to `most`, those of `valued` with the
    word behind it, and the other words in order; all are other words behind `--`."""
    options: Counter[Option] = Counter()
    others: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        if word == "--":
            others += words[place:]
            break
        if not _is_option(word):
            others.append(word)
        elif word in valued and place + 1 < len(words) and not _is_option(words[place + 1]):
            options[min(len(others), most), word, words[place + 1]] += 1
            place += 1
        else:
            options[min(len(others), most), word] += 1
        place += 1
    return options, others


def _is_option(word: str) -> bool:
    return word.startswith("-") and word not in ("-", "--")
