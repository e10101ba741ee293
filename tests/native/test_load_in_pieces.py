"""Weights are packed a piece of a matrix at a time, and what was read of the file is given back after each."""

from pathlib import Path

import numpy as np
import pytest
import tiny_llama

from riyaz.engine.native import formats
from riyaz.engine.native.load import _tensor
from riyaz.families import describe
from riyaz.sources import Source, open_source

EMBEDDING = "model.embed_tokens.weight"  # (512, 64)


@pytest.mark.parametrize(
    ("dtype", "precision"), [("Q4_1", "auto"), ("Q8_0", "auto"), ("Q4_0", "int8"), ("F16", "bf16")]
)
def test_the_same_bytes_as_from_whole_matrices(
    dtype: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = describe(open_source(tiny_llama.write_gguf(tmp_path / "model.gguf", dtype=dtype)))
    whole = {name: _tensor(family, name, precision, None) for name in family.stored_names}
    monkeypatch.setattr(formats, "PIECE", 40 * 64)  # no whole number of blocks of 16 rows
    given_back: list[int] = []
    monkeypatch.setattr(Source, "release", lambda self: given_back.append(1))
    for name, matrix in whole.items():
        given_back.clear()
        again = _tensor(family, name, precision, None)
        if isinstance(again, np.ndarray):
            assert np.array_equal(again, matrix)
            continue
        assert again.format == matrix.format and np.array_equal(again.data, matrix.data), name
        if name == EMBEDDING:
            assert len(given_back) == 512 // 32


def test_a_number_that_is_none_is_found_in_any_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_llama.write_gguf(tmp_path / "model.gguf", dtype="Q8_0")
    info, data = open_source(path).tensors["token_embd.weight"], bytearray(path.read_bytes())
    monkeypatch.setattr(formats, "PIECE", 32 * 64)
    for row in (0, 511):
        broken, at = bytearray(data), info.offset + row * info.nbytes // 512
        broken[at : at + 2] = np.float16(np.nan).tobytes()
        path.write_bytes(bytes(broken))
        with pytest.raises(Exception, match="holds nan"):
            _tensor(describe(open_source(path)), EMBEDDING, "auto", None)
