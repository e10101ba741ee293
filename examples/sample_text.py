"""Little stories about animals from a few patterns and a seed: a text that a tiny model can learn in minutes.

`make_samples.py` writes it into the package. The same seed gives the same text. Standard library only.
"""

import random

ANIMALS = ("fox", "dog", "cat", "mouse", "owl", "frog", "hen", "horse", "goat", "duck", "hare", "crow")
COLOURS = ("brown", "black", "white", "grey", "red", "spotted")
SIZES = ("small", "big", "quick", "old", "young", "lazy", "shy", "clever")
NAMES = ("Anu", "Bela", "Chiko", "Dara", "Emil", "Faro", "Gita", "Hugo", "Ines", "Jano", "Kiri", "Lila", "Mona", "Nilo")
HOMES = ("the old barn", "the green hill", "the stone bridge", "the tall tree", "the garden wall", "the mill")
PLACES = ("the river", "the market", "the field", "the wood", "the lake", "the road", "the meadow")
FOODS = ("a red apple", "a piece of bread", "a ripe pear", "some nuts", "some corn", "a sweet berry")
TIMES = ("One morning", "One evening", "One day in spring", "One cold night", "One day in summer")
WEATHERS = ("The sun was warm.", "It rained a little.", "The wind was strong.", "It was very quiet.", "Snow fell.")
ENDS = (
    "They were friends from that day on.", "Then they went home together.", "That night they both slept well.",
    "And so the day came to an end.",
)  # fmt: skip


def a(words: str) -> str:
    """The words behind `a`, or `an` before a vowel."""
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def story(dice: random.Random) -> str:
    """One story: two animals, a place, a food that one has and the other wants."""
    first, second = dice.sample(ANIMALS, 2)
    name, other = dice.sample(NAMES, 2)
    home, place, food = dice.choice(HOMES), dice.choice(PLACES), dice.choice(FOODS)
    looks = f"{dice.choice(SIZES)} {dice.choice(COLOURS)}"
    also = f"{dice.choice(SIZES)} {dice.choice(COLOURS)}"
    jumped = f"The {looks} {first} jumped over the {also} {second}."
    asked = f'"Where do you live?" asked {other}. "I live near {home}," said {name}.'
    gave = dice.choice((
        f'"I am hungry," said {other}. {name} gave {other} {food}. "Thank you, {name}," said {other}.',
        f"{name} had {food}. {other} looked at it. So {name} gave one half to {other}.",
        f'{other} found {food}. "Is it yours?" asked {other}. "No," said {name}, "but we can share it."',
    ))  # fmt: skip
    parts = [
        f"There was once {a(looks)} {first}. The name of the {first} was {name}. {name} lived near {home}.",
        f"{dice.choice(TIMES)} {name} went to {place}. {dice.choice(WEATHERS)}",
        f"At {place} {name} met {a(also)} {second}. The name of the {second} was {other}.",
        *dice.sample((jumped, asked, gave), dice.choice((2, 3))),
        dice.choice(ENDS),
    ]
    return " ".join(parts)


def text(stories: int = 240, seed: int = 7) -> str:
    """That many stories, a blank line between two."""
    dice = random.Random(seed)
    return "\n\n".join(story(dice) for _ in range(stories)) + "\n"
