"""Facts of a bicycle workshop's offers, and sentences that advertise them: python examples/content/gather.py

Writes train.jsonl (300 rows) and test.jsonl (150) beside this file. The sentences were written for riyaz and have its
licence; the facts are drawn with a fixed seed. Every row has three sentences that say the same facts, and `slots` names
the facts that a sentence must hold.
"""

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gathering import Row, destination, write

# Three sentences to a line; lines behind the empty one are held out.
SENTENCES = {
    "rent": """\
Ride a {item} for just {price} {unit}, waiting for you at {place}. | \
At {place} a {item} is yours {unit} for {price}. | \
{price} {unit} and the {item} at {place} takes you anywhere.
Need a {item}? Rent one at {place} for {price} {unit}. | \
Rent a {item} for {price} {unit}, only at {place}. | \
{place} has a {item} for you, at {price} {unit}.
From {place} into the weekend: a {item} costs {price} {unit}. | \
Pick up a {item} at {place} and pay no more than {price} {unit}. | \
{place} lends you a {item} at {price} {unit}.

No car, no problem: {place} hands you the keys of a {item} for {price} {unit}. | \
For {price} {unit} you roll away from {place} on a {item}. | \
A {item}, {price} {unit}, {place}: your trip begins here.""",
    "repair": """\
We fix {item} for {price}, usually within {time}. | \
{item}? Repaired within {time} for {price}. | \
For {price} our mechanics take care of {item} within {time}.
Trouble with {item}? Bring {price} and give us {time}. | \
Give us {time} and {price}, and {item} will be history. | \
{price} is all it takes to have {item} mended in {time}.
Within {time} and for {price} we put an end to {item}. | \
{item}: our workshop needs {time} and charges {price}. | \
Our offer for {item}: {price}, and done in {time}.

Say goodbye to {item}: {time} of your patience and {price} are enough. | \
You bring {item}, we need {time} and {price}, and off you go. | \
{time} from now {item} could be forgotten, for {price}.""",
    "course": """\
Learn {item} with us {day} at {time} for {price}. | \
Our course on {item} starts {day} at {time} and costs {price}. | \
Join us {day} at {time} and learn {item} for {price}.
{item} can be learned: {day}, {time}, {price}. | \
For {price} we teach you {item}, {day} at {time}. | \
Come {day} at {time} and find out about {item}, for {price}.
Hands on: {item}, {day} at {time}, all for {price}. | \
An evening for {item}: {day}, {time}, {price}. | \
Book {item} for {day}, {time}, at {price}.

Never again helpless: {item} is on our programme {day} at {time} for {price}. | \
{price} buys you everything about {item}, {day} from {time}. | \
{day}, {time}: roll up your sleeves for {item}, {price} a head.""",
    "sale": """\
This {colour} {item} is looking for a new owner: {price} at {place}. | \
Take home a {colour} {item} from {place} for {price}. | \
{price} for a {colour} {item}, now at {place}.
New at {place}: a {colour} {item} for {price}. | \
A {colour} {item} has arrived at {place} and costs {price}. | \
Come to {place} and see the {colour} {item} for {price}.
Only {price} for this {colour} {item}, while {place} has it. | \
{place} sells a {colour} {item} for only {price}. | \
At {price} the {colour} {item} at {place} will not stay long.

Somebody will ride off from {place} on this {colour} {item}; for {price} it could be you. | \
Love at first sight for {price}: the {colour} {item} in the window of {place}. | \
The {colour} {item} at {place} wants to go out, and asks {price} for it.""",
}
ITEMS = {
    "rent": "cargo bike|folding bike|city bike|tandem|trailer|child's bike|trike|touring bike|e-bike|racing bike",
    "repair": "a flat tyre|a worn chain|squealing brakes|a bent wheel|a broken spoke|loose gears|a dead light"
    "|a cracked pedal|a torn saddle|a noisy hub",
    "course": "mending a flat|setting gears|building wheels|winter care|brake service|riding in traffic|loading a box"
    "|reading maps|packing for a tour|truing rims",
    "sale": "city bike|cargo bike|racing bike|child's bike|folding bike|mountain bike|tandem|trike|tourer|cruiser",
}
PLACES = "Millrace Yard|Saltgate|Fennick Hill|the Kiln|the Ferry Terminal|Dyer's Bridge"
UNITS = "an hour|a day|a weekend|a week|a month"
TIMES = {"repair": "one hour|two hours|half a day|one day|two days|a week", "course": "10:00|14:30|17:00|18:30|19:15"}
DAYS = "on Monday|on Tuesday|on Thursday|on Saturday|this Sunday|every Wednesday"
COLOURS = "red|moss green|slate blue|mustard yellow|black|white|copper|silver"


def facts(kind: str, draw: random.Random) -> dict[str, str]:
    """The facts of one offer, in the order in which the prompt gives them."""

    def one(text: str) -> str:
        return draw.choice(text.split("|"))

    price = f"{draw.randrange(3, 400)}{draw.choice(('', '', '.50', '.90'))} euros"
    known = {"item": one(ITEMS[kind]), "price": price, "unit": one(UNITS), "place": one(PLACES), "day": one(DAYS),
             "time": one(TIMES.get(kind, "-")), "colour": one(COLOURS)}  # fmt: skip
    return {name: value for name, value in known.items() if f"{{{name}}}" in SENTENCES[kind]}


def offer(kind: str, line: str, part: str, draw: random.Random) -> Row:
    """One row: the facts as the prompt, and the three sentences of a line, which is its group."""
    known = facts(kind, draw)
    sentences = [sentence.strip().format(**known) for sentence in line.split("|")]
    sentences = [sentence[0].upper() + sentence[1:] for sentence in draw.sample(sentences, 3)]
    prompt = "\n".join([f"kind: {kind}", *(f"{name}: {value}" for name, value in known.items())])
    return {"prompt": prompt, "answer": sentences[0], "references": sentences, "slots": list(known.values()),
            "slice": part, "group": line}  # fmt: skip


def rows(held_out: bool, count: int, part: str, taken: set[str], draw: random.Random) -> list[Row]:
    """So many offers with facts that no other row has, from the lines of training rows or those held out."""
    lines = {kind: text.split("\n\n")[held_out].split("\n") for kind, text in SENTENCES.items()}
    made: list[Row] = []
    while len(made) < count:
        kind = list(SENTENCES)[len(made) % len(SENTENCES)]
        row = offer(kind, draw.choice(lines[kind]), part, draw)
        if row["prompt"] not in taken:
            taken.add(row["prompt"])
            made.append(row)
    return made


def main() -> None:
    """Write both files."""
    options = destination(__file__, __doc__)
    draw, taken = random.Random(41), set[str]()
    train = rows(False, 300, "known sentences", taken, draw)
    test = rows(False, 60, "known sentences", taken, draw) + rows(True, 90, "new sentences", taken, draw)
    alone = [row | {"group": None} for row in train]
    write(__file__, options.out, train=alone, test=test)


if __name__ == "__main__":
    main()
