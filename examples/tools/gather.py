"""Requests to a bicycle workshop, and the calls of its calendar that answer them: python examples/tools/gather.py

Writes train.jsonl (300 conversations) and test.jsonl (154) beside this file, in OpenAI's form: messages, tools, and an
assistant's turn with `tool_calls`. In one of eight nothing is to be called and the assistant answers in words. The
sentences were written for riyaz and have its licence; values are drawn with a fixed seed.
"""

import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gathering import Row, destination, shuffled, write

TEXT, DAY = {"type": "string"}, {"enum": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]}
TIME, NUMBER = {"type": "string", "description": "HH:MM"}, {"type": "string", "description": "such as R-1234"}
HALF = {"enum": ["morning", "afternoon"]}
HOURS = {"type": "integer", "minimum": 1, "maximum": 8}
TOOLS = {
    "book_repair": ("Book a repair.", {"bike": TEXT, "problem": TEXT, "day": DAY, "time": TIME}),
    "move_repair": ("Move a booked repair.", {"number": NUMBER, "day": DAY, "time": TIME}),
    "cancel_repair": ("Cancel a booked repair.", {"number": NUMBER}),
    "repair_state": ("How far a repair is.", {"number": NUMBER}),
    "free_times": ("Free times for a repair on a day.", {"day": DAY, "half": HALF}),
    "book_stand": ("Book a stand to work at.", {"day": DAY, "time": TIME, "hours": HOURS}),
}
# The first lines of each call are frames of training rows, those behind the empty line are held out.
FRAMES = {
    "book_repair": """\
Please book my {bike} in for {day} at {time}: {problem}.
I have {problem} on the {bike}. Put me down for {day}, {time}.
{day} {time}, {bike}, {problem}. Can you enter that?
Book a repair on {day} at {time}. The bike is a {bike}, the fault is {problem}.
We spoke about {problem}. Yes, {day} at {time} suits me. It's the {bike}.
An appointment for my {bike} please. {problem}. I can come {day}, {time}.

You wanted to know what is wrong with the {bike}: {problem}. I'll come {day} at {time}, so write it down.
Reserve {time} on {day} for {problem}, the bike being a {bike}.
My {bike} needs you. Cause: {problem}. Time: {day}, {time}.""",
    "move_repair": """\
Can you move {number} to {day} at {time}?
I can't make it. Please put {number} on {day}, {time}.
Repair {number} should be on {day} at {time} instead.
{number}: {day} {time} would be better for me.
Change the date of {number} to {day}, {time} please.

Something came up. {number} would have to wait until {day}, {time}.
Would {day} at {time} be possible for {number} rather than the time we agreed?""",
    "cancel_repair": """\
Cancel {number} please.
I don't need repair {number} any more.
Please take {number} out of the calendar, I sold the bike.
My brother has mended it. You can delete {number}.

Forget about {number}, somebody else did it.
{number} is no longer necessary. Thanks anyway!""",
    "repair_state": """\
How far are you with {number}?
Is {number} ready?
What is the state of my repair {number}?
Any news about {number}?

I'm wondering whether I can fetch {number} today.
{number}, has anybody looked at it yet?""",
    "free_times": """\
When are you free on {day} {half}?
Which times are left on {day} {half}?
Do you have anything on {day} in the {half}?
Show me the free times of {day} {half}.
{day} {half}, is there a time?
What is free on {day}? I can only come in the {half}.

I could come {day}, in the {half}. What can you offer?
Is there still room for a repair on a {day} {half}?
My {half} is empty on {day}. Yours too?""",
    "book_stand": """\
I'd like a stand on {day} from {time} for {hours} hours.
Book me a place to work, {day} {time}, {hours} hours.
May I use your tools on {day}? From {time}, {hours} hours.
A stand please: {day}, {time}, for {hours} hours.

I want to mend my bike myself at your place. {day}, starting {time}, {hours} hours should do.
Keep a bench for me on {day} at {time}; I need {hours} hours.""",
}
# Nothing is to be called; the first lines are of training rows.
TALK = """\
Thank you, that's all.
Good morning!
Who am I talking to?
You are very kind.
Do you like your work?
Never mind, I'll ask my sister.
Nice weather for a ride today.
I have to think about it.
What kind of firm is this?
Sorry, wrong number.
I was just trying whether this works.
Can you speak French?
My bike is my best friend.
Good evening, are you still there?
One moment, the children are calling.
I love the colour of your van.
Which bike do you ride yourself?
Your colleague was very friendly last time.
I am not sure yet what I want.
Tell me a joke about bicycles.
Is it true that you began on a ferry?
OK.
That was quick!
I read about you in the newspaper.
No, nothing else.
How do you pronounce your name?
I do not have a bike yet.
See you soon!
Do you sell coffee?
Let me ask my husband first.
Hello, can you hear me?
Why is everybody cycling nowadays?
Please wait, I am looking for my glasses.
What a lovely workshop you have.
I will write again tomorrow.
Oh, I see.
Merry Christmas to all of you.

Cheers, have a nice day.
Are you a machine?
I'll come back to you on that.
Greetings from the seaside!
My son wants to become a mechanic.
Perfect.
What do you think of electric scooters?
Hm, that is a difficult decision.
Is your dog still alive?
I only wanted to say hello.
You must be busy in spring.
Can a bicycle be too old to ride?
Well, well.
Say hello to Mira from me.
I'd rather not say."""
WORDS = "How can I help you with your repair?"  # where nothing is to be called
BIKES = "Gazelle|Brompton|cargo bike|tandem|red Batavus|racing bike|folding bike|Trek|trike|mountain bike|Koga|e-bike"
PROBLEMS = """flat front tyre|squealing brake|broken spoke|slipping chain|loose saddle|dead rear light|worn brake pads
|snapped gear cable|bent wheel|battery that will not charge|noisy pedal|rusty chain|cracked mudguard"""


def schema(name: str) -> Row:
    """A tool as OpenAI's interface describes it."""
    says, fields = TOOLS[name]
    parameters = {"type": "object", "properties": fields, "required": list(fields)}
    return {"type": "function", "function": {"name": name, "description": says, "parameters": parameters}}


def conversation(name: str, frame: str, part: str, draw: random.Random) -> Row:
    """One row of the group `frame`: a request made from it, and the call of `name` with the values that it holds."""
    values = {
        "bike": draw.choice(BIKES.split("|")), "problem": draw.choice(PROBLEMS.replace("\n", "").split("|")),
        "day": draw.choice(DAY["enum"]), "time": f"{draw.randrange(9, 18):02}:{draw.choice(('00', '15', '30', '45'))}",
        "number": f"R-{draw.randrange(1000, 10000)}", "hours": draw.randrange(1, 9), "half": draw.choice(HALF["enum"]),
    }  # fmt: skip
    article = "" if values["problem"].startswith("worn") else "a "
    request = frame.format(**values | {"problem": article + values["problem"]})
    arguments = json.dumps({field: values[field] for field in TOOLS[name][1]})
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return row(request[0].upper() + request[1:], {"content": "", "tool_calls": [call]}, part) | {"group": frame}


def row(request: str, answer: dict[str, object], part: str) -> Row:
    """A conversation of two turns with all tools."""
    messages = [{"role": "user", "content": request}, {"role": "assistant", **answer}]
    return {"messages": messages, "tools": [schema(name) for name in TOOLS], "slice": part}


def rows(held_out: bool, calls: int, part: str, draw: random.Random) -> list[Row]:
    """So many different requests, as many of each tool, from the frames of training rows or those held out."""
    frames = {name: text.split("\n\n")[held_out].splitlines() for name, text in FRAMES.items()}
    made: dict[str, Row] = {}
    while len(made) < calls:
        name = list(TOOLS)[len(made) % len(TOOLS)]
        new = conversation(name, draw.choice(frames[name]), part, draw)
        made[new["messages"][0]["content"]] = new
    return list(made.values())


def talk(held_out: bool) -> list[Row]:
    """The rows in which nothing is to be called."""
    return [row(text, {"content": WORDS}, "no call") for text in TALK.split("\n\n")[held_out].splitlines()]


def main() -> None:
    """Write both files."""
    options, draw = destination(__file__, __doc__), random.Random(41)
    train = rows(False, 263, "known frames", draw) + talk(False)
    asked = {each["messages"][0]["content"] for each in train}
    test = rows(False, 60, "known frames", draw) + rows(True, 85, "new frames", draw) + talk(True)
    test = [each for each in test if each["messages"][0]["content"] not in asked]
    alone = [each | {"group": None} for each in train]
    write(__file__, options.out, train=shuffled(alone), test=shuffled(test))


if __name__ == "__main__":
    main()
