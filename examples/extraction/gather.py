"""Messages to a bicycle workshop, and what a clerk would note of each as JSON: python examples/extraction/gather.py

Writes train.jsonl (400 rows) and test.jsonl (200) beside this file. The sentences were written for riyaz and have its
licence; names, numbers and bikes are drawn with a fixed seed, so every note is exactly right. A field that the message
does not tell is null.
"""

import json
import random
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gathering import Row, destination, write

# {problem} is noted as it stands in the message; the other fields in the form of the schema.
KNOWN = """\
Hi, this is {name}. My {bike} has {problem}. Could I bring it in on {day} at {time}? You can reach me on {phone}.
Hello, {problem} on my {bike}. {day} would suit me. {name}
{name} here, {phone}. The {bike} again: {problem}.
Good morning! I'd like to book my {bike} in for {day}, {time} if possible. It's {problem}. Thanks, {name}
Can you look at {problem}? It is a {bike}. I am free {day} from {time}.
Dear workshop, since last week my {bike} has had {problem}. I could drop it off {day}. Kind regards, {name}, {phone}
{problem}. {bike}. {day} {time}. {name}.
Is there a slot on {day}? {problem} again, the {bike} this time. Ring {phone}.
My name is {name} and I ride a {bike}. Yesterday I noticed {problem}. When can I come?
need help, {problem} on the {bike}, can come {day} {time}, number is {phone}
Hello there, not {other_day} please, {day} is better, at {time}. It's about {problem}. {name}
Please call {phone} when you have looked at it: {bike}, {problem}.
I wrote to you about my {bike}: {problem}. My husband {other_name} will bring it on {day}. Yours, {name}
{name}, {phone}: {problem}, as early as you can on {day}.
Hi team, would {day} at {time} work for a repair? I have {problem}.
The {bike} I bought from you has {problem} already. Please write back. {name}
Hello, I am calling for {name}, whose {bike} has {problem}. Best on {day}. The number is {phone}.
We met at the open day! {name} again, with the {bike}. Now it is {problem}. Could you take it {day}, about {time}?
How long does it take to fix {problem}? I'd come {day} at {time}. Tel. {phone}
{day} {time} would be great. {problem}. Thank you! {name}
Old {bike}, new trouble: {problem}. I need it back soon. {phone}
Sorry to bother you, I think there's {problem} on my {bike}. I work until noon, so {day} at {time}? Best, {name}
Morning, {name} speaking. I can't come {other_day} after all. Is {day} at {time} still free? It was {problem}.
Could someone ring me on {phone} about {problem}? I'm {name}.
For {day}: one {bike}, {problem}, owner {name}, telephone {phone}.
I've got {problem} and no idea how to fix it. My bike's a {bike}.""".splitlines()
NEW = """\
A quick one: {problem}, {bike}, and I could be with you {day}, say {time}. {name} ({phone})
Greetings from the hill. The lady with the {bike}, {name}, wonders whether you mend {problem}. {day} perhaps?
It never ends: now {problem}. Would you have me {day}? I'm on {phone} all day.
Bonjour, my {bike} makes trouble, {problem} I think you say. I am {name}. I can {day} at {time}.
Reserve {time} on {day} for me, will you? {problem}. The name's {name}.
What would you charge for {problem}? Asking for my {bike}. No hurry.
Further to our call: {name}, {bike}, {problem}. {other_day} turned out to be impossible, so {day}.
My daughter came home pushing her {bike}. There is {problem}. Call me, {phone}, thanks. {name}
{time} {day}, same as always? {problem}. - {name}
Whoever reads this first: {problem}! I am stranded. {phone}
To whom it may concern: the undersigned, {name}, owns a {bike} with {problem} and asks for an appointment on {day}.
hey its {name}, got {problem} lol, u open {day}? txt me {phone}
My commuter, a {bike}, has developed {problem}. {day} would be ideal; otherwise text {phone}.
Do you also do {problem}? On {day} I'd be near you at {time}.
I was told to give my number, {phone}, and the fault, {problem}. The bike is a {bike}.
Following the advice of {other_name}, who is a customer of yours, I ask you to see to {problem}. {name}""".splitlines()
BIKES = """Gazelle Esprit|Batavus Quip|Brompton|Heron cargo bike|Wren|Dawes Galaxy|Raleigh Chopper|Trek FX 2|Koga Miyata
|Peugeot racer|Pashley Princess|Otter folding bike|Surly Troll|Genesis Croix de Fer|Ridgeback tandem|Giant Escape
|Kalkhoff Image|Cube Touring|Orbea Carpe|Specialized Sirrus|Bianchi|Moulton|Puky Cyke|Badger trike"""
NEW_BIKES = "Cannondale Quick|VSF T-300|Stevens Galant|Bergamont Horizon|Tern Link|Yuba Mundo|Falter C 4.0|Ribble CGR"
PROBLEMS = """a flat front tyre|a flat back tyre|a squealing rear brake|a bent wheel|a broken spoke|a slipping chain
|gears that will not change|a loose saddle|a wobbly handlebar|a clicking pedal|a dead rear light|worn brake pads
|a snapped gear cable|a rusty chain|a leaking brake hose|a noisy bottom bracket|a cracked mudguard|a stuck seat post
|a motor that cuts out|a battery that will not charge|a display that stays black|a rubbing disc brake|a lost valve cap
|a puncture|a torn saddle|a crank that creaks|a buckled rear wheel|a front light that flickers"""
NEW_PROBLEMS = """a headset that grinds|a belt that jumps|a kickstand that folds up|a bell without a sound|a split tyre
|a hub that whistles|a brake lever that touches the grip|a chain guard that rattles"""
FIRST = "Ana Ben Chidi Dora Emil Fatma Goran Hana Ines Jonah Kemal Leila Marek Nora Otto Priya Ravi Sofie Tom Uma"
LAST = "Abbott Brandt Costa Dupont Evans Fischer Grant Hughes Iversen Jansen Kaya Lindgren Moreau Novak Okoye Peters"
NEW_LAST = "Quist Romano Schulte Tanaka Underhill Vega Wozniak Yilmaz"
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
HOURS = ("nine", "ten", "eleven", "twelve", "one", "two", "three", "four", "five")
FIELDS = ("name", "bike", "problem", "day", "time", "phone")


def values(text: str) -> list[str]:
    """The entries of a list in this file."""
    return [entry.strip() for entry in text.replace("\n", "").split("|")]


def spoken_time(draw: random.Random) -> tuple[str, str]:
    """A time of day as people write it, and as HH:MM; one to five are hours of the afternoon."""
    place = draw.randrange(len(HOURS))
    hour, minute = (9, 10, 11, 12, 13, 14, 15, 16, 17)[place], draw.choice((0, 0, 15, 30, 45))
    noted = f"{hour:02}:{minute:02}"
    after = HOURS[(place + 1) % len(HOURS)]
    words = {0: f"{HOURS[place]} o'clock", 15: f"quarter past {HOURS[place]}", 30: f"half past {HOURS[place]}"}
    clock = f"{(hour - 1) % 12 + 1}{f':{minute:02}' if minute else ''} {'am' if hour < 12 else 'pm'}"
    said = [noted, clock, words.get(minute, f"quarter to {after}" if hour < 17 else noted)]
    return draw.choice(said), noted


def spoken_day(day: str, draw: random.Random) -> str:
    """A day as people write it."""
    return draw.choice((day, day, day, day.lower(), day[:3], f"next {day}"))


def spoken_phone(digits: str, draw: random.Random) -> str:
    """A number such as 555-0134 as people write it."""
    return draw.choice((digits, digits.replace("-", " "), digits.replace("-", ""), f"({digits[:3]}) {digits[4:]}"))


def message(frame: str, new: bool, draw: random.Random) -> tuple[str, dict[str, str | None]]:
    """One message of a frame, and its note. Every third value of a `new` message occurs in no other."""

    def one(known: list[str], unseen: list[str]) -> str:
        return draw.choice(unseen if new and draw.random() < 1 / 3 else known)

    name = f"{draw.choice(FIRST.split())} {one(LAST.split(), NEW_LAST.split())}"
    day, other_day = draw.sample(DAYS, 2)
    said_time, time = spoken_time(draw)
    phone = f"555-0{draw.randrange(100, 1000)}"
    note = {
        "name": name, "bike": one(values(BIKES), values(NEW_BIKES)),
        "problem": one(values(PROBLEMS), values(NEW_PROBLEMS)), "day": day, "time": time, "phone": phone,
    }  # fmt: skip
    said = note | {
        "day": spoken_day(day, draw), "time": said_time, "phone": spoken_phone(phone, draw),
        "other_day": other_day, "other_name": draw.choice(("Ada", "Bruno", "Carla", "Dirk", "Elif", "Finn")),
    }  # fmt: skip
    text = frame.format(**said)
    if draw.random() < 0.7:
        text = re.sub(r"(^|[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)
    text = text.lower() if draw.random() < 0.08 else text
    problem = text[text.lower().index(note["problem"].lower()) :][: len(note["problem"])]
    note["problem"] = re.sub("^(a|an) ", "", problem.lower())
    return text, {field: note[field] if f"{{{field}}}" in frame else None for field in FIELDS}


def rows(frames: list[str], count: int, part: str | None, new: bool, draw: random.Random) -> list[Row]:
    """`count` different messages, as many of each frame, in random order; those of the test name their slice and, as
    their group, the frame."""
    made: dict[str, Row] = {}
    while len(made) < count:
        frame = frames[len(made) % len(frames)]
        text, note = message(frame, new, draw)
        tested = {"slice": part, "group": frame} if part else {}
        made[text] = {"prompt": text, "answer": json.dumps(note), **tested}
    return draw.sample(list(made.values()), count)


def main() -> None:
    """Write both files."""
    options, draw = destination(__file__, __doc__), random.Random(41)
    train = rows(KNOWN, 400, None, False, draw)
    test = rows(KNOWN, 60, "known frames", False, draw) + rows(NEW, 140, "new frames", True, draw)
    held = {row["prompt"] for row in train}
    write(__file__, options.out, train=train, test=[row for row in test if row["prompt"] not in held])


if __name__ == "__main__":
    main()
