"""`riyaz quantize`: small weights in a file that is served as it is, measured against bf16."""

import errno
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_comparison
import tiny_llama
from conftest import Finished
from refusals import assert_refused

from riyaz.artifact import Artifact
from riyaz.engine.native import formats
from riyaz.engine.native.load import _tensor, load_runner
from riyaz.export.quantize import Small, quantize
from riyaz.families import describe
from riyaz.predictor import open_target
from riyaz.sources import gguf_groups, gguf_write, open_source

HALF_STEP = {"int8": 1 / 127, "int4": 1 / 15}  # of a group's range, by which rounding may move a weight, and f16 scales


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", seed=3)


@pytest.fixture(autouse=True)
def small_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riyaz.export.quantize.general_text", lambda path: tiny_llama.CORPUS * 4)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_model_with_small_weights(precision: str, folder: Path, tmp_path: Path) -> None:
    told = tiny_comparison.command("quantize", folder, "--precision", precision, "--out", tmp_path / "small", "--json")
    assert told.status == 0, told.err
    document = told.document
    assert document["path"] == str(tmp_path / "small") and document["tokens"] > 100
    assert 0 < document["divergence"] < {"int8": 0.01, "int4": 0.5}[precision]
    assert 0 < abs(document["perplexity"] / document["perplexity_bf16"] - 1) < 0.5
    assert f"KL {document['divergence']:.2g} nats" in told.err
    before, after = describe(open_source(folder)), describe(open_source(tmp_path / "small"))
    for name in before.stored_names:
        values, rounded = before.array(name)[1], after.array(name)[1]
        if values.ndim == 1:
            assert np.array_equal(values, rounded)
        else:
            span = np.abs(values).max() * 2
            assert 0 < np.abs(values - rounded).max() <= HALF_STEP[precision] * span, name
    opened = open_target(tmp_path / "small")
    assert opened.has_model and opened.lm.served == f"{precision} as stored"
    assert load_runner(open_source(tmp_path / "small")).nbytes < load_runner(open_source(folder)).nbytes


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_what_is_served_are_the_groups_that_were_written(
    group: int, symmetric: bool, folder: Path, tmp_path: Path
) -> None:
    flags = ("--group", group, *(["--symmetric"] if symmetric else []))
    told = tiny_comparison.command(
        "quantize", folder, "--precision", "int4", *flags, "--out", tmp_path / "small", "--json"
    )
    assert told.status == 0, told.err
    bits = gguf_groups.bits(group, not symmetric)
    assert (told.document["group"], told.document["minimum"], told.document["bits"]) == (group, not symmetric, bits)
    assert f"int4 in groups of {group}{' without minimums' * symmetric}, {bits:g} bits a weight" in told.err
    source = open_source(tmp_path / "small")
    family = describe(source)
    packed = {name: _tensor(family, name, "auto", None) for name in family.stored_names}
    four = {name: matrix for name, matrix in packed.items() if getattr(matrix, "format", "") == "int4"}
    assert four and all((each.group, each.minimum) == (group, not symmetric) for each in four.values())
    for name, matrix in four.items():
        values = family.array(name)[1]
        assert np.array_equal(np.stack([matrix.row(row)[: values.shape[1]] for row in range(len(values))]), values)
    assert formats.packed_bytes(family, "auto") == sum(each.nbytes for each in packed.values())
    assert load_runner(source).nbytes == formats.packed_bytes(family, "auto")


def test_groups_of_several_scales_are_not_believed(folder: Path, tmp_path: Path) -> None:
    path = tiny_llama.write_gguf(tmp_path / "model.gguf", dtype="Q4_1")
    source = open_source(path)
    source.metadata[gguf_groups.KEY] = 64
    family = describe(source)
    names = [name for name in family.stored_names if family.source.tensors[family.stored_names[name]].dtype == "Q4_1"]
    for name in names:
        matrix = _tensor(family, name, "auto", None)
        assert matrix.group == 32 and np.array_equal(
            matrix.row(0)[: family.array(name)[1].shape[1]], family.array(name)[1][0]
        )
    for said in (48, 0, -64, True, "64", None, 64.5, [64]):
        assert gguf_groups.group_of({gguf_groups.KEY: said}) == 32
    assert names and gguf_groups.group_of({}) == 32


@pytest.mark.parametrize("minimum", [True, False])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_scales_are_searched_for_the_least_squared_error(group: int, minimum: bool) -> None:
    x = (np.random.default_rng(5).standard_t(6, (40, 352)) * 0.05).astype(np.float32)
    x[3], x[4], x[5, 7], x[6] = 0, -0.25, 30, np.abs(x[6])
    dtype = gguf_groups.dtype_of(minimum)
    blocks = gguf_groups.quantise(x, group, minimum)
    assert gguf_groups.are_shared(dtype, blocks, group)
    found = gguf_write.decode(dtype, blocks)
    assert np.array_equal(found[3], x[3]) and np.allclose(found[4], x[4], rtol=2**-10)
    for begin in range(0, 352, group):
        part, rounded = x[:, begin : begin + group].astype(np.float64), found[:, begin : begin + group]
        error = ((rounded - part) ** 2).sum(1)
        plain = plainly_rounded(part, minimum)
        assert (error <= ((plain - part) ** 2).sum(1) * 1.01 + 1e-9).all()
        assert error[7:].sum() < 0.95 * ((plain - part) ** 2)[7:].sum()
    if group == 32:  # nothing that gguf's own rounding does better
        plain = gguf_write.decode(dtype, gguf_write.encode(dtype, x))
        assert ((found - x) ** 2).sum() < ((plain - x) ** 2).sum()


def plainly_rounded(x: np.ndarray, minimum: bool) -> np.ndarray:
    """Groups (N, columns) rounded from the least to the greatest weight, or with the largest at level -8."""
    if minimum:
        low = x.min(1, keepdims=True)
        step = np.maximum(x.max(1, keepdims=True) - low, 1e-9) / 15
        return np.rint((x - low) / step) * step + low
    step = np.take_along_axis(x, np.abs(x).argmax(1)[:, None], 1) / -8
    step[step == 0] = 1
    return np.clip(np.rint(x / step), -8, 7) * step


@pytest.mark.parametrize("method", ["full", "lora", "prompt_tuning", "few_shot"])
def test_an_artifact_with_small_weights(method: str, quick: Finished, tmp_path: Path) -> None:
    artifact, out = quick.artifact(method), tmp_path / "small"
    done = quantize(str(artifact), Small("int8"), out)
    before, after = open_target(artifact), open_target(out)
    assert after.has_model and after.lm.served == "int8 as stored" and before.has_model
    document = Artifact.read(out)
    assert document.text == Artifact.read(artifact).text and document.method == method
    assert document.weights.kind == Artifact.read(artifact).weights.kind
    row = [{"role": "user", "content": "where is my refund"}]
    assert after.answer(row) in document.task.labels  # type: ignore[union-attr]
    assert math.isfinite(done.perplexity) and done.divergence < 0.05
    moved = tmp_path / "elsewhere"
    out.rename(moved)
    assert open_target(moved).answer(row) == after.answer(row)


@pytest.mark.parametrize("kind", ["model", "artifact"])
def test_what_stops_in_the_comparison_with_bf16_leaves_nothing(
    kind: str, folder: Path, quick: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = str(folder if kind == "model" else quick.artifact("lora"))
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            assert not (tmp_path / "small").exists(), "a command that is killed now cannot be given again"
            raise KeyboardInterrupt

        patch.setattr("riyaz.export.quantize.compared", stop)
        with pytest.raises(KeyboardInterrupt):
            quantize(target, Small("int8"), tmp_path / "small")
    assert list(tmp_path.iterdir()) == []
    assert quantize(target, Small("int8"), tmp_path / "small").tokens > 100


def test_a_file_that_cannot_be_written_is_named_where_it_would_stand(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("riyaz.files.os.fsync", full)
    with assert_refused(f"{tmp_path / 'small/model.gguf'}: the disk is full"):
        quantize(str(folder), Small("int8"), tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_cannot_be_read_is_named_and_not_the_result(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "artifact/training_rows.txt")

    monkeypatch.setattr("riyaz.export.quantize.compared", failing)
    with assert_refused("artifact/training_rows.txt: Input/output error; nothing was kept"):
        quantize(str(folder), Small("int8"), tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_another_process_made_meanwhile_is_told_and_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*given: object) -> tuple:
        (tmp_path / "small").mkdir()
        (tmp_path / "small/model.gguf").write_text("the other's")
        return 1.0, 1.0, 0.0, 100

    monkeypatch.setattr("riyaz.export.quantize.compared", other)
    with assert_refused("small: already exists: another process made it meanwhile"):
        quantize(str(folder), Small("int8"), tmp_path / "small")
    assert [path.name for path in tmp_path.rglob("*")] == ["small", "model.gguf"]


def test_what_cannot_be_made_smaller_is_refused(folder: Path, quick: Finished, tmp_path: Path) -> None:
    quantize(str(folder), Small("int4"), tmp_path / "small")
    for form in (Small("int4"), Small("int8")):
        with assert_refused("bits each already", f"{form} would make them no smaller"):
            quantize(str(tmp_path / "small"), form, tmp_path / "again")
    quantize(str(tmp_path / "small"), Small("int4", 128), tmp_path / "smaller")
    for form in (Small("int4", 64), Small("int4", 64, False), Small("int4", 128)):
        with assert_refused("have 4.25 bits each already", f"{form} would make them no smaller"):
            quantize(str(tmp_path / "smaller"), form, tmp_path / "again")
    for flags in (("--group", 64), ("--symmetric",)):
        told = tiny_comparison.command("quantize", folder, "--precision", "int8", *flags, "--out", tmp_path / "again")
        assert told.status == 2 and "groups and minimums are chosen for int4 only" in told.err
    with assert_refused("this artifact has no language model"):
        quantize(str(quick.artifact("nearest")), Small("int8"), tmp_path / "again")
    with assert_refused("already exists"):
        quantize(str(folder), Small("int8"), tmp_path / "small")
    assert not (tmp_path / "again").exists()


def test_a_model_whose_weights_hold_a_nan_leaves_nothing(tmp_path: Path) -> None:
    tiny_llama.write_hf_folder(tmp_path / "model", seed=3)
    path = tmp_path / "model/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(bytes(data))
    with assert_refused("model.norm.weight' holds nan"):
        quantize(str(tmp_path / "model"), Small("int8"), tmp_path / "small")
    assert not (tmp_path / "small").exists()
