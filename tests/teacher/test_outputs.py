"""What a teacher has answered on disk: read back as written, cut where a write was, refused where it is damaged."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from refusals import assert_refused

from riyaz.data.rows import Wanted
from riyaz.sources import safetensors
from riyaz.teacher import outputs
from riyaz.teacher.outputs import ANSWERS, SOFT, Output, append, kept, of_label, prompt_key, read, write

TEXTS = {"k1": Output("two days"), "k2": Output("ä “quoted”\nline  "), "k3": Output("")}


def drawn(count: int, seed: int) -> Wanted:
    generator = np.random.default_rng(seed)
    return Wanted(generator.integers(0, 500, (count, 32)), generator.normal(-4, 2, (count, 32)).astype(np.float32))


SOFT_TEXTS = {"k1": Output("two days", drawn(3, 1)), "k2": Output("x", drawn(1, 2)), "k3": Output("y z", drawn(7, 3))}
LABELS = {f"k{place}": Output(label, of_label(np.log(np.array(p))))
          for place, (label, p) in enumerate({"a": (0.7, 0.2, 0.1), "b": (0.3, 0.6, 0.1)}.items())}  # fmt: skip


def assert_same(one: Mapping[str, Output], other: Mapping[str, Output]) -> None:
    """The same keys in the same order, texts, and distributions to the bit."""
    assert list(one) == list(other)
    for key, output in one.items():
        assert output.text == other[key].text
        theirs = other[key].soft
        assert (output.soft is None) == (theirs is None)
        if output.soft is not None and theirs is not None:
            assert np.array_equal(output.soft.tokens, theirs.tokens) and theirs.tokens.dtype == np.int64
            assert np.array_equal(output.soft.log_p, theirs.log_p) and theirs.log_p.dtype == np.float32


@pytest.mark.parametrize("made", [TEXTS, SOFT_TEXTS, LABELS])
def test_what_was_written_is_read_back(made: dict[str, Output], tmp_path: Path) -> None:
    write(tmp_path, made)
    assert_same(made, read(tmp_path))
    assert (tmp_path / SOFT).exists() == (made is not TEXTS)


@pytest.mark.parametrize("made", [TEXTS, LABELS])
def test_what_grows_is_read_back_to_the_bit(made: dict[str, Output], tmp_path: Path) -> None:
    path = tmp_path / "deep/grows.jsonl"
    assert kept(path) == {}
    first, *rest = made
    append(path, {first: made[first]})
    append(path, {key: made[key] for key in rest})
    assert_same(made, kept(path))


def test_a_labels_probabilities_are_the_same_before_and_after_they_were_kept(tmp_path: Path) -> None:
    p = np.random.default_rng(4).dirichlet(np.ones(7), 50)
    made = {str(place): Output("a", of_label(np.log(row.astype(np.float32)))) for place, row in enumerate(p)}
    append(tmp_path / "grows.jsonl", made)
    assert_same(made, kept(tmp_path / "grows.jsonl"))
    assert all(np.allclose(made[str(place)].soft.log_p[0], np.log(row), atol=1e-5)  # type: ignore[union-attr]
               for place, row in enumerate(p))  # fmt: skip


@pytest.mark.parametrize("torn", [b"{", b'{"key":"k4","text":"half', b'{"key":"k4","text":"whole"}', b"\xff\xfe"])
def test_a_last_line_that_was_cut_off_is_removed_and_the_rest_kept(torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "grows.jsonl"
    append(path, TEXTS)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert_same(TEXTS, kept(path))
    assert path.read_bytes() == whole
    append(path, {"k4": Output("again")})
    assert kept(path)["k4"].text == "again" and len(path.read_bytes().splitlines()) == 4


@pytest.mark.parametrize("line", [
    b"\xff\xfe", b"{", b"3", b"[]", b"null", b'{"key": "k9"}', b'{"key": 3, "text": "x"}',
    b'{"key": "k9", "text": null}',
    b'{"key": "k9", "text": "x", "log_p": "abc"}', b'{"key": "k9", "text": "x", "log_p": [-0.1, null]}',
    b'{"key": "k9", "text": "x", "log_p": null}', b'{"key": "k9", "text": "x", "log_p": [[-0.1]]}',
])  # fmt: skip
def test_a_damaged_line_is_asked_for_again(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "grows.jsonl"
    append(path, LABELS)
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + line + b"\n" + b"".join(rest))
    assert_same(LABELS, kept(path))


def test_damaged_answers_are_one_line(tmp_path: Path) -> None:
    write(tmp_path, SOFT_TEXTS)
    path = tmp_path / ANSWERS
    for content in ('{"key": "a", "text": 3}\n', '{"text": "a"}\n', "[1]\n"):
        path.write_text(content)
        with assert_refused(f"{ANSWERS}:1", "has no key and text", outputs.REMOVE):
            read(tmp_path)
    path.write_text('{"key": "a", "te\n')
    with assert_refused(ANSWERS, outputs.REMOVE):
        read(tmp_path)
    path.unlink()
    with assert_refused(ANSWERS):
        read(tmp_path)


def test_damaged_distributions_are_one_line(tmp_path: Path) -> None:
    write(tmp_path, SOFT_TEXTS)
    path, lengths = tmp_path / SOFT, np.array([3, 1, 7], np.int32)
    whole = path.read_bytes()
    tokens, log_p = np.zeros((11, 4), np.int32), np.zeros((11, 4), np.float32)
    cases: list[dict[str, np.ndarray]] = [
        {"tokens": tokens, "log_p": log_p, "lengths": lengths[:2]},
        {"tokens": tokens[:10], "log_p": log_p[:10], "lengths": lengths},
        {"tokens": tokens, "log_p": log_p[:10], "lengths": lengths},
        {"tokens": tokens, "log_p": log_p[:, :3], "lengths": lengths},
        {"tokens": tokens[:, 0], "log_p": log_p[:, 0], "lengths": lengths},
        {"tokens": tokens, "log_p": log_p, "lengths": np.array([12, -2, 1], np.int32)},
        {"tokens": tokens, "log_p": log_p, "lengths": np.array([11, 0, 0], np.int32)},
        {"tokens": tokens, "log_p": log_p, "lengths": lengths[:, None]},
    ]
    for arrays in cases:
        safetensors.write(path, arrays)
        with assert_refused(SOFT, f"does not fit {ANSWERS}", outputs.REMOVE):
            read(tmp_path)
    safetensors.write(path, {"tokens": tokens, "lengths": lengths})
    with assert_refused(SOFT, "lacks", "log_p", outputs.REMOVE):
        read(tmp_path)
    for content in (whole[:-9], whole[:20], b"", b"\x00" * 40):
        path.write_bytes(content)
        with assert_refused(SOFT):
            read(tmp_path)


def test_a_write_that_fails_leaves_the_texts_that_were_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, TEXTS)
    monkeypatch.setattr(outputs.safetensors, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, SOFT_TEXTS)
    assert_same(TEXTS, read(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [ANSWERS]


def test_a_key_is_that_of_the_whole_conversation() -> None:
    turn = {"role": "user", "content": "where is it?"}
    others = [
        [{"role": "system", "content": ""}, turn], [turn, turn], [{**turn, "content": "where is it? "}],
        [{**turn, "role": "assistant"}], [],
    ]  # fmt: skip
    assert prompt_key([turn]) == prompt_key([json.loads(json.dumps(turn))])
    assert len({prompt_key([turn]), *map(prompt_key, others)}) == 1 + len(others)
