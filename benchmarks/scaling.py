"""Scaling, measured: four sizes at one budget of time and one size at four budgets, on one text with one tokenizer.

    python benchmarks/scaling.py --text python.jsonl --budget 8m        # about five times the budget
    python benchmarks/scaling.py --draw                                        # only draws from scaling.json

Every run is a `riyaz pretrain` of its own in a folder of its own; the same command again goes on where it was stopped
and never does a finished run twice. Writes scaling.json and scaling.svg to docs/pictures, and the table of
docs/how-a-model-learns.md. The last line is one JSON document: bits per byte of every run.
"""

import argparse
import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator

from riyaz import hardware
from riyaz.config import Seconds
from riyaz.json_files import to_document
from riyaz.report.comparison.pictures import below
from riyaz.report.media.page import drawing
from riyaz.report.media.svg import FAINT, PAPER, colour, inset, picture, place
from riyaz.report.pretraining.words import cost, points, powers, read_run, readings
from riyaz.report.words import number

ROOT = Path(__file__).resolve().parents[1]
PICTURES, PAGE = ROOT / "docs/pictures", ROOT / "docs/how-a-model-learns.md"
SIZES, MIDDLE, SHARES = ("1m", "5m", "15m", "50m"), "5m", (8, 4, 2)  # the middle size also at these parts of the budget
SHADES = {"1m": 1, "5m": 2, "15m": 5, "50m": 6}
WIDTH, HEIGHT = 760.0, 470.0
BEGIN, END = "<!-- scaling: written by benchmarks/scaling.py -->", "<!-- end of scaling -->"
INTERRUPTED = 130
RIYAZ = [sys.executable, "-m", "riyaz.cli.main"]


def main() -> None:
    """Run what is not finished yet, then write data, picture and table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, nargs="+", help="files or folders of text, as riyaz pretrain takes them")
    parser.add_argument("--budget", type=Seconds, default=Seconds("8m"), help="time of one run of each size")
    parser.add_argument("--out", type=Path, default=Path("scaling-runs"), help="folder of the runs")
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", action="store_true", help="draw from docs/pictures/scaling.json and run nothing")
    args = parser.parse_args()
    if not (args.draw or args.text):
        parser.error("--text is missing; or --draw, to draw what was measured")
    failed = [] if args.draw else measure(args)
    data = PICTURES / "scaling.json"
    if not args.draw:
        data.write_text(json.dumps(collect(args), indent=1) + "\n", encoding="utf-8")
    document = json.loads(data.read_text(encoding="utf-8")) if data.exists() else None
    publish(document, PICTURES, PAGE)
    measured = document["runs"] if document else []
    print(json.dumps({"scaling": {run["name"]: round(run["bits_per_byte"], 4) for run in measured}}))
    sys.exit(1 if failed else 0)


def runs(budget: float) -> dict[str, tuple[str, Seconds]]:
    """Name -> (size, budget) of every run, the short ones first."""
    asked = [(MIDDLE, Seconds(budget / share)) for share in SHARES] + [(size, Seconds(budget)) for size in SIZES]
    return {f"{size}-{time}": (size, time) for size, time in asked}


def measure(args: argparse.Namespace) -> list[str]:
    """Train the tokenizer and every run that is not done; names of the runs that failed. Ctrl-C ends the program."""
    args.out.mkdir(parents=True, exist_ok=True)
    same_question(args)
    tokenizer = args.out / "tokenizer"
    if not (tokenizer / "tokenizer.json").exists():
        texts = map(str, args.text)
        if status := riyaz("tokenizer", *texts, "--vocab", str(args.vocab), "--out", str(tokenizer)):
            sys.exit(status)
    failed = []
    for name, (size, budget) in runs(args.budget).items():
        folder = args.out / name
        if state(folder) == "done":
            print(f"{name}: done before", flush=True)
            continue
        print(f"{name}: {size} for {budget}", flush=True)
        began = args.out / f"{name}.commit"
        if not began.exists():
            began.write_text(commit(), encoding="utf-8")
        status = riyaz(*command(args, size, budget, folder))
        if status == INTERRUPTED:
            sys.exit(status)
        failed += [name] if status else []
    for name in failed:
        print(f"{name}: failed", file=sys.stderr)
    return failed


def same_question(args: argparse.Namespace) -> None:
    """Refuse a folder whose runs were asked something else."""
    path = args.out / "asked.json"
    asked = {"text": [str(text.resolve()) for text in args.text], "vocab": args.vocab, "context": args.context,
             "seed": args.seed}  # fmt: skip
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != asked:
        sys.exit(f"error: {args.out}: its runs had another text, vocabulary, context or seed; choose another --out")
    path.write_text(json.dumps(asked), encoding="utf-8")


def command(args: argparse.Namespace, size: str, budget: Seconds, folder: Path) -> list[str]:
    """What `riyaz` is given for one run."""
    # no dropout: the dial gives it to runs that read the text often, and they would differ in two things
    settings = {"--size": size, "--budget": budget, "--tokenizer": args.out / "tokenizer", "--context": args.context,
                "--dropout": 0, "--seed": args.seed, "--out": folder}  # fmt: skip
    flags = [str(word) for pair in settings.items() for word in pair]
    return ["pretrain", *map(str, args.text), *flags, "--json", *(["--resume"] if state(folder) else [])]


def riyaz(*words: str) -> int:
    """Run one command in a process of its own; its exit status."""
    try:
        return subprocess.run([*RIYAZ, *words], stdout=subprocess.DEVNULL).returncode
    except KeyboardInterrupt:
        return INTERRUPTED


def state(folder: Path) -> str | None:
    """What run.json says of a run; None when there is none."""
    path = folder / "run.json"
    return str(json.loads(path.read_text(encoding="utf-8")).get("status")) if path.exists() else None


def collect(args: argparse.Namespace) -> dict[str, Any]:
    """scaling.json: every finished run, and on what and where it was measured."""
    found = {name: read_run(args.out / name) for name in runs(args.budget) if state(args.out / name) == "done"}
    if not found:
        sys.exit("error: no run is finished")
    measured = []
    for name, (run, metrics, _) in found.items():
        size, budget = runs(args.budget)[name]
        took, last = cost(run, metrics), metrics[-1].step
        flops = took.flops or math.nan
        began = args.out / f"{name}.commit"
        measured.append({
            "name": name, "size": size, "budget": float(budget), "parameters": run.model.parameters,
            "tokens": took.tokens, "readings": readings(run, metrics), "steps": last, "flops": flops,
            "seconds": took.seconds, "peak_share": took.peak_share,
            "commit": began.read_text(encoding="utf-8") if began.exists() else "unknown",
            "dropout": run.plan["dropout"],
            "bits_per_byte": run.result.bits_per_byte,
            "curve": [[flops * step / last, bits] for step, bits in points(metrics, "bits_per_byte")],
        })  # fmt: skip
    run = next(iter(found.values()))[0]
    here, texts = hardware.describe(), " ".join(text.name for text in args.text)
    return {
        "command": f"python benchmarks/scaling.py --text {texts} --budget {args.budget}",
        "cpu": here["cpu"], "cores": here["cores"], "context": args.context, "seed": args.seed,
        "text": {key: getattr(run.text, key) for key in ("bytes", "train_tokens", "sha256")},
        "tokenizer": to_document(run.tokenizer), "versions": run.versions, "runs": measured,
    }  # fmt: skip


def commit() -> str:
    """The short name of this repository's commit, with a + when files differ from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def publish(document: dict[str, Any] | None, pictures: Path, page: Path) -> None:
    """Write the picture, and the figures into the page between its two marks."""
    (pictures / "scaling.svg").write_text(svg(document), encoding="utf-8")
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{table(document)}\n{END}{after}", encoding="utf-8")


def table(document: dict[str, Any] | None) -> str:
    """The runs as a Markdown table, with what they were measured on."""
    if document is None:
        return "Not measured yet."
    text = document["text"]
    lines = [
        f"Measured by `{document['command']}` at {commits(document['runs'])} on {document['cpu']}, "
        f"{document['cores']} cores; {number(text['bytes'] / 1e6, 1)} MB of text, "
        f"{number(document['tokenizer']['vocab'])} tokens in the vocabulary, context {document['context']}.",
        "",
        "| size | budget | took | parameters | tokens read | per parameter | readings | FLOP | bits per byte |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in document["runs"]:
        cells = [
            run["size"], minutes(run["budget"]), minutes(run["seconds"]), millions(run["parameters"]),
            millions(run["tokens"]), number(run["tokens"] / run["parameters"], 2), number(run["readings"], 1),
            powers(run["flops"]), number(run["bits_per_byte"], 3),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", sentence(document["runs"])])


def commits(measured: list[dict[str, Any]]) -> str:
    """`commit 1a2b3c4`, or all of them where runs began at several."""
    names = list(dict.fromkeys(run["commit"] for run in measured))
    return f"commit{'s' if names[1:] else ''} {' and '.join(names)}"


def sentence(measured: list[dict[str, Any]]) -> str:
    """What the runs say: the order of the sizes at the longest budget, and what each longer budget brought."""
    longest = max(run["budget"] for run in measured)
    best, *rest = sorted((run for run in measured if run["budget"] == longest), key=lambda run: run["bits_per_byte"])
    behind = ", ".join(f"{run['size']} (+{number(run['bits_per_byte'] - best['bits_per_byte'], 3)})" for run in rest)
    text = f"Of the runs of {minutes(longest)} size {best['size']} ends lowest{f', before {behind}' if rest else ''}."
    pairs = list(pairwise(sorted((run for run in measured if run["size"] == MIDDLE), key=lambda run: run["budget"])))
    if pairs:
        more = ", ".join(number(after["tokens"] / before["tokens"], 1) for before, after in pairs)
        gains = ", ".join(number(after["bits_per_byte"] - before["bits_per_byte"], 3) for before, after in pairs)
        text += f" From each budget to the next {MIDDLE} read {more} times as much: {gains} bits per byte."
    return text


def minutes(seconds: float) -> str:
    """`8 min`."""
    return f"{seconds / 60:.3g} min"


def millions(count: float) -> str:
    """`5.21 M`."""
    return f"{count / 1e6:,.2f} M"


def svg(document: dict[str, Any] | None) -> str:
    """The picture as a file of its own."""
    title, height = "Bits per byte against computation", HEIGHT if document else 160.0
    return drawing(picture(lambda figure: draw(figure, document), WIDTH, height, "scaling", title))


def draw(figure: Figure, document: dict[str, Any] | None) -> None:
    """Each run a line that ends in a mark; ends of the sizes and ends of the budgets are joined."""
    panel = figure.subplots()
    inset(figure, 58, 30, 44, 56)
    if document is None:
        panel.set_axis_off()
        later = "Not measured yet:\npython benchmarks/scaling.py --text … --budget 8m"
        panel.text(0.5, 0.5, later, ha="center", va="center", linespacing=1.8)
        return
    found = document["runs"]
    ends = {run["name"]: (run["flops"], run["bits_per_byte"]) for run in found}
    for run in found:
        shade = colour(SHADES[run["size"]])
        panel.plot(*zip(*[*run["curve"], ends[run["name"]]]), color=shade, lw=1.4, alpha=0.45)
    longest = max(run["budget"] for run in found)
    for group in ([r for r in found if r["budget"] == longest], [r for r in found if r["size"] == MIDDLE]):
        line = sorted(ends[run["name"]] for run in group)
        panel.plot(*zip(*line), color=FAINT, lw=1.2, linestyle=(0, (4, 3)), zorder=2)
    for run in found:
        shade = colour(SHADES[run["size"]])
        face = shade if run["budget"] == longest else PAPER
        panel.plot(*ends[run["name"]], "o", color=shade, mfc=face, mew=2, ms=9, zorder=3)
    limits(panel, found)
    place(panel, [(*ends[run["name"]], said(run)) for run in found])
    panel.set_title("bits per byte on held-out text", pad=16)
    below(figure, "computation in FLOP (log scale); hollow: less time")


def said(run: dict[str, Any]) -> str:
    """The name at a mark: `5M in 16 min: 1.603`."""
    return f"{run['size'].upper()} in {minutes(run['budget'])}: {number(run['bits_per_byte'], 3)}"


def limits(panel: Any, found: list[dict[str, Any]]) -> None:
    """Axes that hold every end, and of each line what is not far above them."""
    flops, bits = [run["flops"] for run in found], [run["bits_per_byte"] for run in found]
    panel.set_xscale("log")
    panel.set_xlim(min(flops) / 6, max(flops) * 2.2)
    room = max(max(bits) - min(bits), 0.05)
    panel.set_ylim(max(min(bits) - 0.25 * room, 0), max(bits) + 1.1 * room)
    panel.grid(axis="y", lw=0.7)
    panel.yaxis.set_major_locator(MaxNLocator(6))
    panel.xaxis.set_major_formatter(Powers())
    panel.xaxis.set_minor_formatter("")


class Powers(LogFormatterSciNotation):
    """Ticks as 10¹⁴, in signs and not in mathematics, which pictures here do not have."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The tick's text."""
        return powers(x).removeprefix("1.0 × ")


if __name__ == "__main__":
    main()
