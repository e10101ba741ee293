"""What the three files of a pretraining run say, in figures and sentences; the page and the terminal share them.

Every function takes what `run.json`, `metrics.jsonl` and `samples.jsonl` held and shows whatever of it is there.
"""

import json
import math
from pathlib import Path
from typing import Any

from riyaz.errors import RiyazError
from riyaz.report.words import MISSING, duration, number

Run = dict[str, Any]
ENOUGH = 20  # tokens per parameter that spend a given computation best (Hoffmann et al. 2022, arXiv 2203.15556)
READINGS = 4  # of one text, up to which another one helps almost as new text does (Muennighoff et al. 2023, 2305.16264)
EXACT = {"steps", "compute", "validate_every"}  # flags without which a measured speed decides
PLANNED = {"batch": "batch_size", "steps": "steps", "validate-every": "validate_every"}
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SPACE, LINE, TAB = "␣", "⏎", "⇥"  # what stands for a space, a new line and a tab at the edge of a token
HINT = "give the folder that riyaz pretrain wrote"


def read(folder: Path) -> tuple[Run, list[dict], list[dict]]:
    """(run, metrics, samples) of a folder of `riyaz pretrain`, metrics and samples by step.

    A resumed run writes some steps again: the later lines count. The last line of a run that was killed may be torn
    and is left out. Raises RiyazError for any other damage.
    """
    path = folder / "run.json"
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RiyazError("there is no pretraining run here", str(folder), HINT) from error
    except ValueError as error:
        raise RiyazError("this file is damaged", str(path), "train again with another --out") from error
    if not isinstance(run, dict):
        raise RiyazError("this is no pretraining run", str(path), HINT)
    return run, _by_step(folder / "metrics.jsonl"), _by_step(folder / "samples.jsonl")


def _by_step(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    found: dict[float, dict] = {}
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            if place == len(lines):
                break  # no line feed behind it: the run was killed while it wrote
            what = "train again with another --out"
            raise RiyazError("this line is damaged", f"{path}:{place}", what) from error
        step = known(entry, "step")
        if step is not None:
            found[step] = entry
    return [found[step] for step in sorted(found)]


def part(run: Run, name: str) -> dict[str, Any]:
    """One of the mappings in run.json; empty when it is missing."""
    found = run.get(name)
    return found if isinstance(found, dict) else {}


def known(entry: object, key: str) -> float | None:
    """A finite number of a record, or None."""
    value = entry.get(key) if isinstance(entry, dict) else None
    ok = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if ok else None


def points(metrics: list[dict], key: str) -> list[tuple[float, float]]:
    """(step, value) wherever the value was measured."""
    found = [(known(entry, "step"), known(entry, key)) for entry in metrics]
    return [(step, value) for step, value in found if step is not None and value is not None]


def best(metrics: list[dict]) -> dict | None:
    """The validation with the lowest loss, whose weights the folder holds."""
    looks = [entry for entry in metrics if known(entry, "valid_loss") is not None]
    return min(looks, key=lambda entry: entry["valid_loss"], default=None)


def judged(run: Run, metrics: list[dict]) -> tuple[float | None, float | None]:
    """(nats per token, bits per byte) on held-out text: of the finished model, else of the best validation."""
    result, found = part(run, "result"), best(metrics)
    loss = known(result, "valid_loss")
    if loss is None:
        return known(found, "valid_loss"), known(found, "bits_per_byte")
    return loss, known(result, "bits_per_byte")


def steps_done(metrics: list[dict]) -> int:
    """Steps the run has taken."""
    return int(metrics[-1]["step"]) if metrics else 0


def cost(run: Run, metrics: list[dict], key: str) -> float | None:
    """A cost of the whole run; where run.json has none yet, the last one of metrics.jsonl."""
    found = known(part(run, "cost"), key)
    return found if found is not None else next((value for _, value in reversed(points(metrics, key))), None)


def compact(count: float | None) -> str:
    """`5.2 million`, `1.3 billion`, `83,200`."""
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if count is not None and count >= 0.9995 * size:
            return f"{count / size:,.1f} {name}"
    return number(count)


def powers(value: float | None) -> str:
    """`4.1 × 10¹⁴`."""
    if value is None or value <= 0:
        return MISSING
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits} × 10{str(int(power)).translate(SUPERSCRIPT)}"


def share(value: float | None) -> str:
    """`43 %`; of the machine's peak."""
    return MISSING if value is None else f"{100 * value:.0f} %"


def chance(p: float | None) -> str:
    """A probability as `12.3 %`, `0.02 %`, `<0.01 %`."""
    if p is None:
        return MISSING
    return "<0.01 %" if p < 0.00005 else f"{100 * p:.{1 if p >= 0.00995 else 2}f} %"


def token(text: object) -> str:
    """A token with its spaces and line ends in sight: `␣jumps`."""
    shown = str(text).replace("\n", LINE).replace("\t", TAB)
    inner = shown.strip(" ")
    left = len(shown) - len(shown.lstrip(" "))
    return SPACE * left + inner + SPACE * (len(shown) - left - len(inner)) if inner else SPACE * len(shown) or "(empty)"


def readings(run: Run, metrics: list[dict]) -> float | None:
    """How often the training text was read, tokens read against tokens there."""
    tokens, there = cost(run, metrics, "tokens"), known(part(run, "text"), "train_tokens")
    return tokens / there if tokens is not None and there else None


def name(run: Run) -> str:
    """`llama, 5.2 million parameters`."""
    model = part(run, "model")
    count = known(model, "parameters")
    return str(model.get("family") or "model") + (f", {compact(count)} parameters" if count is not None else "")


def story(run: Run, metrics: list[dict]) -> list[str]:
    """What happened, in a few sentences."""
    tokens, seconds = cost(run, metrics, "tokens"), cost(run, metrics, "seconds")
    took = f" in {duration(seconds)}" if seconds is not None else ""
    times = readings(run, metrics)
    much = f", {often(times)}," if times is not None else ""
    what = f"{compact(tokens)} tokens of text{much}" if tokens is not None else "text"
    said = [f"A model that began with random weights read {what}{took}."]
    return [*said, *_learned(run, metrics), *_ended(run, metrics)]


def often(times: float) -> str:
    """How much of the training text was read: `1.5 times its training text`, `3 % of its training text`."""
    if times < 0.005:
        return "less than 1 % of its training text"
    return f"{number(times, 1)} times its training text" if times > 1 else f"{share(times)} of its training text"


def _learned(run: Run, metrics: list[dict]) -> list[str]:
    (loss, bits), vocabulary = judged(run, metrics), known(part(run, "tokenizer"), "vocab")
    if loss is None:
        return ["It was never validated, so nobody knows yet what it learned."]
    begins = f"{number(math.log(vocabulary), 2)} for guessing evenly" if vocabulary and vocabulary > 1 else ""
    first = next((value for _, value in points(metrics, "valid_loss")), loss)
    before = begins or (f"{number(first, 2)} at first" if first != loss else "")
    line = f"On text that it never trained on it comes to {number(loss, 2)} nats per token"
    line += f" ({before})" if before else ""
    line += f", which is {number(bits, 2)} bits per byte" if bits is not None else ""
    ways = math.exp(min(loss, 60))
    wide = f": at every token it is as unsure as between {compact(round(ways)) if ways >= 10 else number(ways, 1)}"
    wide += " equally likely ones"
    wide += f", out of {number(vocabulary)}" if vocabulary else ""
    return [f"{line}{wide}."]


def _ended(run: Run, metrics: list[dict]) -> list[str]:
    done, planned, found = steps_done(metrics), known(part(run, "plan"), "steps"), best(metrics)
    of = f" of {number(planned)}" if planned is not None else ""
    if run.get("status") == "running":
        return [f"It is at step {number(done)}{of} and still running, or was killed; this page shows it so far."]
    if run.get("status") == "stopped":
        return [f"It was stopped at step {number(done)}{of}; the same command with --resume goes on."]
    looks = points(metrics, "valid_loss")
    if found is None or len(looks) < 2:
        return []
    held = known(part(run, "result"), "best_step")
    if held is not None and held != found["step"]:
        line = f"It was lowest at step {number(found['step'])}{of}, but the folder holds the weights of step"
        return [f"{line} {number(held)}: those were lost, or not measured alike before and after a stop."]
    if planned is not None and done < planned:
        worse = f"it had not come lower since step {number(found['step'])}, whose weights the folder holds"
        return [f"It ended early at step {number(done)}{of}: {worse}."]
    if looks[-1][0] == found["step"]:
        return ["It was lowest at the very end: a longer run would probably come lower."]
    line = f"It was best at step {number(found['step'])}{of}; the folder holds those weights"
    worse = looks[-1][1] - found["valid_loss"]
    return [f"{line}. After that it learned its text by heart." if worse > 0.05 else f"{line}."]


def keep_in_mind(run: Run, metrics: list[dict]) -> list[str]:
    """What the figures do not show, as far as the files tell."""
    text, parameters = part(run, "text"), known(part(run, "model"), "parameters")
    tokens, times, twins = cost(run, metrics, "tokens"), readings(run, metrics), known(text, "near_duplicates")
    notes = ["Validation blocks come from the same files as the training text: other text is predicted worse."]
    if twins:
        notes.append(
            f"{number(twins)} validation blocks are nearly in the training text: a little of the score is recall."
        )
    if tokens is not None and parameters:
        ratio = tokens / parameters
        less = f"{number(ratio, 1 if ratio < 10 else 0)} tokens were read per parameter; about {ENOUGH} spend a given"
        notes.append(f"{less} computation best (Hoffmann et al. 2022).")
    if times is not None and times > READINGS:
        said = f"It read its text {number(times, 1)} times; after about {READINGS} readings"
        notes.append(f"{said} each further one helps less and less (Muennighoff et al. 2023).")
    notes += [
        "It writes in the manner of its text. What it says is not checked against anything and is mostly not true.",
        "Bits per byte compare models with different tokenizers; nats per token do not.",
        "One seed. Times and memory belong to the machine named above.",
    ]
    return notes


def again(run: Run) -> str:
    """What gives the same weights once more."""
    asked, plan, model = part(run, "asked"), part(run, "plan"), part(run, "model")
    if others := part(run, "resumed_with"):
        named = ", ".join(f"{name} {version}" for name, version in others.items())
        return f"It was stopped and went on with {named}, so no command gives the same weights to the last bit."
    if asked.keys() >= EXACT:
        return "The same command on the same text and machine gives the same weights."
    found = [(name, known(model, name)) for name in ("layers", "heads", "width")]
    found += [(name, known(plan, key)) for name, key in PLANNED.items()]
    flags = [f"--{name} {value:g}" if value < 1e6 else f"--{name} {value:.0f}" for name, value in found if value]
    if plan.get("compute") in ("bfloat16", "float32"):
        flags.append(f"--compute {plan['compute']}")
    said = "Some values come from the speed that was measured, which is another each time; plan.json has them."
    return f"{said} The same command without --budget and --size, but with {' '.join(flags)}, gives the same weights."


def spaced(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, first and last among them, denser at the beginning, where most changes."""
    if count <= most:
        return list(range(count))
    last, chosen = count - 1, [0]
    for turn in range(1, most):
        wanted = round(last ** (turn / (most - 1)))
        chosen.append(min(max(wanted, chosen[-1] + 1), last - (most - 1 - turn)))
    return chosen


def sampled(samples: list[dict]) -> list[tuple[float, list[tuple[str, str]]]]:
    """(step, [(prompt, what the model wrote after it), …]) of every time that the run wrote samples."""
    found = []
    for entry in samples:
        texts = _records(entry.get("texts"))
        if texts:
            found.append((entry["step"], [(str(one.get("prompt", "")), str(one.get("text", ""))) for one in texts]))
    return found


def next_words(samples: list[dict]) -> list[tuple[float, str, list[tuple[str, float]]]]:
    """(step, prompt, [(token, p), …]) of every time that the run looked at the next word, likeliest first."""
    found = []
    for entry in samples:
        table = part(entry, "next")
        words = _records(table.get("words"))
        pairs = [(str(word.get("text", "")), p) for word in words if (p := known(word, "p")) is not None]
        if pairs:
            found.append((entry["step"], str(table.get("prompt", "")), sorted(pairs, key=lambda pair: -pair[1])))
    return found


def _records(value: object) -> list[dict]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
