"""Conversations with Pip, the assistant of a bike firm, and of people who chat: python examples/chatbot/gather.py

Writes train.jsonl (150 conversations) and test.jsonl (200 last turns) beside this file: who Pip is, what the firm's
handbook says (the questions of examples/helpdesk), what the customer said before, and what is not Pip's business. The
sentences were written for riyaz and have its licence. With --style also style/train.jsonl and style/test.jsonl:
conversations of the package chitchat-dataset, in which many answers are right.
"""

import json
import random
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gathering import Row, destination, shuffled, wheel, write

CHITCHAT = ("chitchat-dataset", "0.9.0", "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e", "MIT")
HELPDESK = Path(__file__).resolve().parents[1] / "helpdesk"
REFUSAL = "Sorry, I only know about Brindlewheel."
# answer | questions of training rows | questions of test rows
PERSONA = """\
Pip | What's your name? / Who am I talking to? | How may I call you? / Do you have a name?
Brindlewheel | Who do you work for? / Which firm is this? | Whose assistant are you? / What company do you belong to?
no, a program | Are you human? / Am I talking to a person? / Are you real? | Is there a man behind this?
a copper kettle | What is on your picture? / What's that in your icon? | What do I see in your profile picture?
three years old | How old are you? / What is your age? | For how long have you existed? / When were you made?
Dov | Who built you? / Who is your maker? / Who programmed you? | Who do I thank for making you? / Who wrote you?
English and Dutch | Which languages do you speak? / What can you speak? | In what languages may I write to you?
any hour | When can I write to you? / What are your hours? | Are you awake at night?
no, never | Do you keep what I write? / Are my messages stored? | Will this chat be saved?
the yellow Otter | What is your favourite bike? / Which bike is best? | Could you ride, which bike would it be?"""
OUTSIDE = """\
Can you write an essay on Napoleon for me? | What is the capital of Peru? | Solve x + 4 = 9.
Who won the match last night?
What should I cook tonight? | Translate 'good morning' into Greek. | Which shares do I buy? | Is my headache bad?
Write me a poem about the sea. | How do I repair my dishwasher? | Will it rain tomorrow? | Whom should I vote for?
Recommend a film. | How tall is Mount Everest? | What is the best phone? | Fix this Python loop for me.
When does the train to Ghent leave? | How do I train my cat? | Do my homework please. | Explain black holes.
What's the exchange rate of the yen? | Can you book me a hotel in Rome? | Which diet works? | Tell me about the Romans.
Name three kinds of cheese. | What does my horoscope say? | How do I get rid of ants? | Is this mushroom edible?"""
NEW_OUTSIDE = """\
Who painted the Mona Lisa? | My neighbour is too loud. May I sue him? | What is 17 times 23?
Plan a birthday party for six children.
How do I prune roses? | Which medicine helps against hay fever? | Summarise the news of today. | Is there life on Mars?
Write an application for me. | What's a good name for a dog? | How long do I boil an egg? | Can I watch TV with you?
Who is the president of Chile? | Compose a tune. | Why is the sky blue? | Help me with my taxes."""
NAMES = [
    "Ana",
    "Ben",
    "Chidi",
    "Dora",
    "Emil",
    "Fatma",
    "Goran",
    "Hana",
    "Ines",
    "Jonah",
    "Kemal",
    "Leila",
    "Nora",
    "Tom",
]
BIKES = ["Heron", "Wren", "Badger", "tandem", "Brompton", "racing bike", "mountain bike", "trike", "Gazelle"]
TOWNS = ["Ostermere", "Saltgate", "Fennick Hill", "the harbour", "the old town", "the college", "Dyer's Bridge"]
OPENINGS = """\
Hi, I'm {name}. I ride a {bike} and live near {town}.
Hello! {name} here, from {town}, owner of a {bike}.
Good morning, my name is {name}, I come from {town} and my bike is a {bike}.
{name} speaking. You sold me a {bike}. I live by {town}.

Hey, it's {name}, the one with the {bike}, from {town}.
I am {name}, I've got a {bike} and a flat in {town}."""
MEMORY = {
    "name": "What was my name again? / Do you still know my name? / Who am I? | How am I called? / Say my name.",
    "bike": "Which bike do I have? / What do I ride? / What bike did I say I own? | My bike is a what?",
    "town": "Where do I live? / Where did I say I come from? | Where is my home? / Do you recall where I'm from?",
}


def listed(text: str, by: str) -> list[str]:
    """The entries of a list in this file."""
    return [entry.strip() for entry in re.split(rf" {by} |\n", text)]


def handbook(part: str) -> list[tuple[str, str]]:
    """The questions and first answers of examples/helpdesk that the handbook answers."""
    rows = map(json.loads, (HELPDESK / f"{part}.jsonl").read_text(encoding="utf-8").splitlines())
    return [(row["question"], row["answers"][0]) for row in rows if row["slice"] == "fact"]


def pairs(kind: str, new: bool, customer: dict[str, str]) -> list[tuple[str, str]]:
    """Questions of a kind with their answers to a customer; `new` ones are asked in test rows only."""
    if kind == "handbook":
        return handbook("test" if new else "train")
    if kind == "refusal":
        return [(question, REFUSAL) for question in listed(NEW_OUTSIDE if new else OUTSIDE, r"\|")]
    if kind == "memory":
        lines = [(customer[key], text.split(" | ")[new]) for key, text in MEMORY.items()]
    else:
        lines = [(answer, asked[new]) for answer, *asked in (line.split(" | ") for line in PERSONA.splitlines())]
    return [(question, answer) for answer, text in lines for question in listed(text, "/")]


def conversation(last: str, new: bool, draw: random.Random) -> list[tuple[str, str]]:
    """Two to five turns, question and answer: an opening, and the last of the kind `last`."""
    customer = {"name": draw.choice(NAMES), "bike": draw.choice(BIKES), "town": draw.choice(TOWNS)}
    opening = draw.choice(OPENINGS.split("\n\n")[new].splitlines()).format(**customer)
    turns = [(opening, f"Hello {customer['name']}, I am Pip. How can I help?")]
    kinds = draw.choices(("handbook", "persona", "memory", "refusal"), k=draw.randrange(1, 4))
    final = draw.choice(pairs(last, new, customer))
    for kind in kinds:  # an answer that is asked for at the end does not stand before it, but in the opening
        others = [pair for pair in pairs(kind, new, customer) if pair[1] != final[1]]
        turns += [draw.choice(others)] if others else []
    return [*turns, final]


def rows(count: int, new: bool, draw: random.Random) -> list[Row]:
    """So many conversations, as many that end with each kind; of `new` ones only the last answer counts."""
    made = []
    for place in range(count):
        kind = ("handbook", "persona", "memory", "refusal")[place % 4]
        messages: list[Row] = []
        for question, answer in conversation(kind, new, draw):
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        if new:
            messages = [turn | {"weight": 0} if turn["role"] == "assistant" else turn for turn in messages]
            messages[-1]["weight"] = 1
        last = {"slice": kind, "group": messages[-2]["content"]}  # rows that end with one question are not independent
        made.append({"messages": messages, **(last if new else {})})
    return shuffled(made, 41)


def style(seed: int = 41) -> tuple[list[Row], list[Row]]:
    """600 and 150 conversations of four to eight turns between two people, without links and very long turns. In those
    of the test the first answer does not count: greetings are alike."""
    held = json.loads(wheel(*CHITCHAT).read("chitchat_dataset/dataset.json"))
    kept = []
    for talk in held.values():
        texts = [" ".join(each["text"].strip() for each in turn) for turn in talk["messages"]][:8]
        texts = texts[: len(texts) // 2 * 2]
        if len(texts) >= 4 and all(0 < len(text) <= 200 and "http" not in text for text in texts):
            roles = ("user", "assistant")
            kept.append({"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]})
    kept = shuffled(kept, seed)
    test = kept[600:750]
    for each in test:
        for turn in each["messages"][1::2]:
            turn["weight"] = int(turn is not each["messages"][1])
    return kept[:600], test


def main() -> None:
    """Write the files."""
    options = destination(
        __file__, __doc__, style={"action": "store_true", "help": "also write style/ (8 MB download)"}
    )
    draw = random.Random(41)
    write(__file__, options.out, train=rows(150, False, draw), test=rows(200, True, draw))
    if options.style:
        train, test = style()
        settings = Path(__file__).with_name("style") / "riyaz.toml"
        write(str(settings), options.out / "style", train=train, test=test)


if __name__ == "__main__":
    main()
