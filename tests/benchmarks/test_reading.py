"""benchmarks/reading.py: agreement, a tie and disagreement of two readers of one file are told apart."""

import pytest
import tiny_llama
import torch
from load_script import load_script


@pytest.fixture(scope="module")
def reading():
    return load_script("benchmarks/reading.py")


@pytest.fixture(scope="module")
def ours(reading, tmp_path_factory):
    return reading.Riyaz(tiny_llama.write_gguf(tmp_path_factory.mktemp("reading") / "model.gguf"))


class Peer:
    """The other side, answered by Riyaz with a fault in its ids, its last token or its logits."""

    def __init__(self, ours, bos=(), last=lambda token: token, scale=1.0) -> None:
        self.ours, self.bos, self.last, self.scale = ours, bos, last, scale

    def answer(self, text, count):
        made = self.ours.answer(text, count)
        return made._replace(prompt=[*self.bos, *made.prompt], tokens=[*made.tokens[:-1], self.last(made.tokens[-1])])

    def logits(self, tokens):
        return self.ours.logits(tokens) * self.scale


@torch.no_grad()
def test_the_same_reader_agrees_and_another_does_not(reading, ours):
    same = reading.compare(ours, Peer(ours), 2)
    assert same["equal"] and same["texts_equal"] == same["prompts"] == 20 and same["logits"] == 0
    other = reading.compare(ours, Peer(ours, last=lambda token: (token + 1) % 512), 2)
    assert not other["equal"] and len(other["other_tokens"]) + len(other["ties"]) == 20 and other["other_tokens"]
    assert all(found["token"] == 1 for found in other["other_tokens"])
    assert not reading.compare(ours, Peer(ours, scale=1.1), 1)["equal"]
    ids = reading.compare(ours, Peer(ours, bos=[1]), 1)
    assert not ids["equal"] and ids["prompts_with_other_ids"] == 20
