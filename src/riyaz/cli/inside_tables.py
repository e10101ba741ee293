"""The terminal's tables of `riyaz inside`, from its document."""

from typing import Any

from riyaz.cli.output import Screen

MILLION = 1e6
BLOCKS = " ▁▂▃▄▅▆▇█"
STRIP = 24  # numbers of a vector
LOOKED_AT, HEADS, LINEARS, VALUES = 8, 6, 8, 6  # lines, heads, linears and singular values shown, at most
CELLS = 20  # characters of a full bar
NAMED = (("previous token", "previous"), ("first token", "first"), ("copies", "copied"))


def show(screen: Screen, made: dict[str, Any]) -> None:
    """Print a document, part by part."""
    facts = made["model"]
    sizes = f"{facts['layers']} layers, width {facts['width']}, {facts['heads']} heads"
    line(screen, f"{made['target']}, {facts['served']}: {sizes}")
    words(screen, made["tokens"])
    layers(screen, made)
    attention(screen, made)
    product(screen, made["product"])
    title(screen, "Next word")
    screen.table(
        ["next token", "probability", "drawn"],
        [[repr(each["text"]), f"{each['probability']:.4f}", f"{each['drawn']:.4f}"] for each in made["next"]],
        numbers=["probability", "drawn"],
    )
    if "before" in made:
        changes(screen, made)
    if "codes" in made:
        coded(screen, made["codes"])


def words(screen: Screen, tokens: list[dict[str, Any]]) -> None:
    """Tokens, their vectors and their neighbours."""
    title(screen, "Words to numbers")
    rows = []
    for place, each in enumerate(tokens):
        near = " ".join(repr(other["text"]) for other in each["near"])
        number = "" if each["id"] < 0 else str(each["id"])
        rows.append([str(place), repr(each["text"]), number, f"{each['norm']:.2f}", strip(each["vector"]), near])
    titles = ["", "token", "id", "length", "vector, its first numbers", "nearest tokens"]
    screen.table(titles, rows, numbers=[titles[0], *titles[2:4]], later=titles[5:])


def layers(screen: Screen, made: dict[str, Any]) -> None:
    """The layers of the token that is looked at."""
    token, answer = made["tokens"][made["at"]]["text"], made["next"][0]["text"]
    title(screen, f"Layers, behind the token {token!r}")
    rows = []
    for each in made["layers"]:
        halves = [each["attention"]["share"], each["mlp"]["share"]] if each["layer"] else [made["embedding_share"]]
        shares = [f"{half:+.1%}" for half in halves] + [""] * (2 - len(halves))
        ending = "  ".join(f"{one['text']!r} {one['probability']:.2f}" for one in each["lens"][:3])
        rows.append([layer_name(each["layer"]), f"{each['norm']:.1f}", *shares, ending, str(each["answer"]["rank"])])
    titles = ["layer", "length", "attention", "MLP", "the next token if the model ended here", f"rank of {answer!r}"]
    screen.table(titles, rows, numbers=[*titles[:4], titles[5]])
    since = f"from layer {made['appears']} on" if made["appears"] else "from the start"
    line(
        screen,
        f"{answer!r} leads {since}. attention, MLP: shares of the final stream, the embedding's in the first line; "
        "they add up to 100 %.",
        "dim",
    )


def attention(screen: Screen, made: dict[str, Any]) -> None:
    """What the token looks at, and the heads with a name."""
    part, at = made["attention"], made["at"]
    which = "the mean of all heads" if part["head"] is None else f"head {part['head'] + 1}"
    title(screen, f"Attention in layer {part['layer'] + 1}, {which}")
    weights = part["weights"][at][: at + 1]
    largest = sorted(sorted(range(len(weights)), key=lambda place: -weights[place])[:LOOKED_AT])
    rows = [[str(i), repr(made["tokens"][i]["text"]), f"{weights[i]:.1%}", bar(weights[i])] for i in largest]
    screen.table(["", "looks at", "weight", " "], rows, numbers=["", "weight"])
    heads = part["heads"]
    for name, share in NAMED:
        alike = sorted((each for each in heads if each["name"] == name), key=lambda each: -each[share])
        if alike:
            shown = ", ".join(f"{h['layer'] + 1}.{h['head'] + 1} ({h[share]:.0%})" for h in alike[:HEADS])
            more = " …" if len(alike) > HEADS else ""
            line(screen, f"{name}: {len(alike)} of {len(heads)} heads, layer.head {shown}{more}", "dim")


def product(screen: Screen, made: dict[str, Any]) -> None:
    """One product by hand, and the count of all."""
    title(screen, f"One product: the score of {made['token']['text']!r}")
    shown, second = made["numbers"], made["second"]
    for each in shown:
        line(
            screen,
            f"  x[{each['place']}] · w[{each['place']}] = {each['x']:.4g} · {each['w']:.4g} = {each['product']:.4g}",
        )
    rest = made["score"] - sum(each["product"] for each in shown)
    line(screen, f"  {made['count'] - len(shown)} more = {rest:.4g}; all {made['count']} = {made['score']:.4f}")
    line(
        screen,
        f"  {second['text']!r} has {second['score']:.4f}: {made['difference']:.4f} less, by the engine's probabilities "
        f"{made['engine']:.4f} less",
        "dim",
    )
    for each in made["matrices"]:
        shape = f"{each['count']} × {each['rows']:,} × {each['columns']:,}"
        line(screen, f"  {each['name']:12} {shape:>22} = {each['multiplications'] / MILLION:9.2f} million")
    line(screen, f"  {'attention':35} = {made['attention_multiplications'] / MILLION:9.2f} million")
    line(screen, f"  {'all multiplications of one token':35} = {made['multiplications'] / MILLION:9.2f} million")
    if speed := made["speed"]:
        peak = speed["peak_billions_s"]
        beside = f"; of 8-bit integers in registers this CPU makes {peak:,.0f}" if peak else ""
        rate = f"{speed['tokens_s']:.0f} tokens/s × that = {speed['billions_s']:.1f} billion multiplications/s"
        line(screen, f"  {rate}{beside}", "dim")


def changes(screen: Screen, made: dict[str, Any]) -> None:
    """Before and after."""
    between = made["before"]
    title(screen, f"Changed, beside {between['target']}")
    own = [each for each in made["tokens"] if each["id"] >= 0]
    divergence = "KL of the next token, nats"
    rows = [[repr(each["text"]), f"{value:.4f}"] for each, value in zip(own, between["divergence"])]
    screen.table(["after", divergence], rows, numbers=[divergence])
    titles = ["layer", "stream moved by", "KL of the lens, nats"]
    moved = enumerate(zip(between["moved"], between["lens"]))
    rows = [[layer_name(number), f"{share:.2%}", f"{nats:.4f}"] for number, (share, nats) in moved]
    screen.table(titles, rows, numbers=titles)
    parts = between["parts"]
    where = "nowhere" if parts is None else f"first behind layer {parts}" if parts else "from the start"
    line(screen, f"The lens differs by more than .01 nats {where}.", "dim")
    line(screen, touches(between["touched"]), "dim")
    largest = sorted(between["linears"], key=lambda one: -one["relative"])[:LINEARS]
    if largest:
        rows = [
            [one["name"], f"{one['relative']:.2%}", " ".join(f"{value:.3g}" for value in one["spectrum"][:VALUES])]
            for one in largest
        ]
        titles = ["most changed weights", "change ÷ weights", "singular values of B·A"]
        screen.table(titles[: 3 if any(one["spectrum"] for one in largest) else 2], rows, numbers=titles[1:2])


def touches(parts: dict[str, Any]) -> str:
    """Which parts of the model the target touches, in one sentence."""
    own = [f"the {name} of its prompt" for name in parts["prompt"]]
    counted = {"vectors": "{} vectors before the text", "pairs": "pairs beside {} matrices", "weights": "{} matrices",
               "labels": "a head of {} labels, which is not looked into here"}  # fmt: skip
    own += [words.format(parts[name]) for name, words in counted.items() if parts[name]]
    return f"What it changes: {', '.join(own) if own else 'nothing'}."


def coded(screen: Screen, linears: list[dict[str, Any]]) -> None:
    """How often each code of the weights occurs."""
    title(screen, "Codes of the weights")
    if not linears:
        line(screen, "The file holds no weights as ternary, Q4_0, Q4_1, Q4_K or Q8_0.", "dim")
        return
    rows = []
    for each in linears:
        zeros = "" if each["zeros"] is None else f"{each['zeros']:.1%}"
        last = each["first"] + len(each["counts"]) - 1
        rows.append([each["name"], each["kind"], f"{each['first']} to {last}", strip(binned(each["counts"])), zeros])
    screen.table(["weights", "stored as", "codes", "how often", "zeros"], rows, numbers=["zeros"])


def binned(counts: list[int]) -> list[float]:
    """Counts in STRIP bins at most."""
    size = -(-len(counts) // STRIP)
    return [float(sum(counts[first : first + size])) for first in range(0, len(counts), size)]


def title(screen: Screen, text: str) -> None:
    """Print a part's title."""
    line(screen, f"\n{text}", "bold")


def line(screen: Screen, text: str, style: str = "") -> None:
    """Print a line as it is."""
    screen.data.print(text, style=style, soft_wrap=True, markup=False, highlight=False)


def layer_name(number: int) -> str:
    """`start` before the first layer."""
    return str(number) if number else "start"


def strip(numbers: list[float]) -> str:
    """Numbers as a strip: a block's height is the size, relative to the largest."""
    most = max(map(abs, numbers)) or 1.0
    return "".join(BLOCKS[round(abs(value) / most * (len(BLOCKS) - 1))] for value in numbers[:STRIP])


def bar(share: float) -> str:
    """A bar of CELLS cells at 1."""
    return "█" * round(share * CELLS)
