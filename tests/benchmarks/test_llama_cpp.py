"""benchmarks/parity.py: agreement, disagreement and a missing llama-cpp-python are told apart."""

import sys

import numpy as np
import pytest
import tiny_llama
from load_script import load_script


@pytest.fixture(scope="module")
def parity():
    return load_script("benchmarks/parity.py")


@pytest.fixture(scope="module")
def ours(parity, tmp_path_factory):
    return parity.Riyaz(tiny_llama.write_gguf(tmp_path_factory.mktemp("parity") / "model.gguf"))


class Peer:
    """What parity.py asks of llama_cpp.Llama, answered by Riyaz with a fault."""

    def __init__(self, ours, fault) -> None:
        self.ours, self.fault, self.tokens = ours, fault, []

    def tokenize(self, text: bytes, add_bos: bool, special: bool) -> list[int]:
        return self.ours.tokenizer.encode(text.decode())

    def reset(self) -> None:
        self.tokens = []

    def eval(self, tokens: list[int]) -> None:
        self.tokens = [*self.tokens, *tokens]

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    @property
    def scores(self) -> np.ndarray:
        return self.fault(self.ours.logits(self.tokens))


def second_best(logits: np.ndarray) -> np.ndarray:
    logits = logits.copy()
    logits[np.arange(len(logits)), logits.argmax(1)] = -100
    return logits


def test_the_same_model_agrees_and_another_does_not(parity, ours):
    same = parity.compare(ours, Peer(ours, lambda logits: logits), 4)
    assert same["equal"] and same["nats_per_token"] < 1e-6 and same["ties"] == same["other_tokens"] == 0
    other = parity.compare(ours, Peer(ours, second_best), 4)
    assert not other["equal"] and other["ties"] + other["other_tokens"] > 0
    warm = parity.compare(ours, Peer(ours, lambda logits: logits * 1.5), 4)
    assert not warm["equal"] and warm["other_tokens"] == 0 and warm["nats_per_token"] > warm["limit"]


def test_without_llama_cpp_one_line_and_no_zero(parity, monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.setattr(sys, "argv", ["parity.py", "model.gguf"])
    with pytest.raises(SystemExit) as caught:
        parity.main()
    assert "llama-cpp-python is not installed" in str(caught.value) and "\n" not in str(caught.value)
