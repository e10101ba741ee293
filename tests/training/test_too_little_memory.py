"""What does not fit the memory is refused before a model is loaded: free memory, cgroup, address space."""

import math
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import tiny_llama
import torch
from refusals import assert_refused
from tiny_comparison import closed_rows, command, write_rows
from waiting import HANG

from riyaz import hardware
from riyaz.comparison import processes, worker
from riyaz.config import Precision
from riyaz.engine.native.load import load_runner
from riyaz.engine.opening import expect_memory
from riyaz.events import quiet
from riyaz.families import describe
from riyaz.hardware import MB, Memory
from riyaz.sources import open_source


def verbs(model: Path, folder: Path) -> dict[str, tuple[object, ...]]:
    write_rows(folder / "rows.jsonl", closed_rows(45, "please"))
    (folder / "text.txt").write_text(tiny_llama.CORPUS)
    rows, out = folder / "rows.jsonl", folder / "out"
    return {
        "generate": ("generate", model, "the card"),
        "chat": ("chat", model),
        "predict": ("predict", "the card", "--model", model),
        "run": ("run", model, rows, "--out", folder / "answers.jsonl"),
        "evaluate": ("evaluate", model, "--test", rows),
        "compare": ("compare", rows, "--model", model, "--out", out),
        "adapt": ("adapt", "lora", rows, "--model", model, "--out", out),
        "export": ("export", model, "--format", "hf", "--out", out),
        "pretrain": ("pretrain", folder / "text.txt", "--out", out),
    }


TORCH_VERBS = ("compare", "adapt", "export", "pretrain")  # torch's own address space counts
VERBS = ("generate", "chat", "predict", "run", "evaluate", "compare", "adapt", "export", "pretrain")


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_that_loads_a_model_is_refused_with_both_figures(
    verb: str, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = verbs(model_folder, tmp_path)[verb]
    assert torch  # it is loaded, so only the model's own memory counts
    monkeypatch.setattr(hardware, "memory", lambda root=None: Memory(MB, MB // 16))
    before = sorted(tmp_path.iterdir())
    told = command(*asked)
    if verb == "pretrain":  # reads its text before it knows what it needs
        assert told.status == 2 and "MB of memory to train and 0 MB are free" in told.line
        return
    assert told.status == 2 and "tiny (0.1 million parameters in " in told.line
    assert "needs about 1 MB of memory and 0 MB are free; close other programs" in told.line
    assert sorted(tmp_path.iterdir()) == before


def test_the_estimate_counts_weights_once_for_each_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(tiny_llama.write_hf_folder(tmp_path / "model", hidden=256))
    needs: list[float] = []
    monkeypatch.setattr(hardware, "expect_memory", lambda what, need, hint, torch: needs.append(need * MB))
    for precision, copies in (("fp32", 1), ("fp32", 2), ("bf16", 1)):
        expect_memory(source, precision, copies, engine="torch")
    parameters = sum(info.nbytes for info in source.tensors.values()) / 4
    assert needs[1] - needs[0] == 4 * parameters
    assert 2 * parameters < needs[2] < needs[0] < needs[1]


@pytest.mark.parametrize("dtype", ["F32", "BF16", "Q4_0", "Q4_1", "Q8_0"])
@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "int8", "int4"])
def test_the_estimate_counts_the_packed_weights_and_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, precision: Precision
) -> None:
    path = tmp_path / "model.gguf"
    tiny_llama.write_gguf(path, hidden=256, dtype=dtype)
    source, needs = open_source(path), []
    monkeypatch.setattr(hardware, "expect_memory", lambda what, need, hint, torch: needs.append((need * MB, torch)))
    for copies in (1, 2):
        expect_memory(source, precision, copies)
    assert not needs[0][1], "torch is not needed"
    packed = load_runner(source, precision).nbytes
    assert needs[1][0] - needs[0][0] == packed
    config = describe(source).config
    cache = (
        2 * config.n_layers * config.n_kv_heads * config.head_dim * config.context * (4 if precision == "fp32" else 2)
    )
    largest = 4 * max(math.prod(info.shape) for info in source.tensors.values())
    assert packed + cache <= needs[0][0] <= packed + cache + largest


def test_the_address_space_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware.address_space() is None
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2**46, 2**46))  # an engine of JavaScript reserves 2**40
    assert 2**45 < hardware.address_space() < 2**46
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1, 1))
    assert hardware.address_space() == 0
    monkeypatch.delitem(sys.modules, "torch")
    with assert_refused("tiny needs about ", "MB of address space and 0 MB are left of its limit", "ulimit -v"):
        hardware.expect_memory("tiny", 1, "")
    monkeypatch.setattr(hardware, "address_space", lambda root: None)
    hardware.expect_memory("tiny", 1, "")


@pytest.mark.parametrize("verb", ["generate", "predict"])
@pytest.mark.parametrize("megabytes", [40, 80, 120, 140, 160, 175, 190, 205, 220, 240])
def test_an_address_space_too_small_to_start_is_one_line(
    megabytes: int, verb: str, model_folder: Path, tmp_path: Path
) -> None:
    limit = (megabytes + hardware.BLAS_SPACE_MB * (hardware.threads() - 2)) * MB  # as two threads find it
    done = subprocess.run(
        [sys.executable, "-m", "riyaz.cli.main", *map(str, verbs(model_folder, tmp_path)[verb])],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=HANG,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done
    assert "MB of address space and" in done.stderr and "raise the limit (ulimit -v) or remove it" in done.stderr


@cache
def loaded_space() -> int:
    """Bytes of address space of a process that has imported what evaluates: another number on each machine."""
    told = "import riyaz.cli.main, riyaz.engine.native.load, riyaz.evaluate, riyaz.metrics.paired"
    told += "; print(open('/proc/self/status').read())"
    status = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=HANG
    ).stdout
    return int(status.split("VmPeak:")[1].split()[0]) * 1024


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_under_a_small_address_space_a_command_ends_in_one_line(verb: str, model_folder: Path, tmp_path: Path) -> None:
    asked = verbs(model_folder, tmp_path)[verb]
    limit = 800 * MB if verb in TORCH_VERBS else loaded_space() + hardware.THREAD_SPACE_MB * MB // 2
    done = subprocess.run(
        [sys.executable, "-m", "riyaz.cli.main", *map(str, asked)],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=HANG,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 2, done
    assert done.stderr.count("\n") == 1 and "MB of address space and" in done.stderr
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("more", range(150, 480, 30))
def test_what_answers_first_and_counts_then_is_refused_or_ends(more: int, model_folder: Path, tmp_path: Path) -> None:
    """`evaluate` imports scipy when it has its answers; it must have been refused where there is no space for it."""
    limit = (more + hardware.BLAS_SPACE_MB * 2 * hardware.threads()) * MB
    done = subprocess.run(
        [sys.executable, "-m", "riyaz.cli.main", *map(str, verbs(model_folder, tmp_path)["evaluate"])],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=HANG,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    refused = done.returncode == 2 and "raise the limit (ulimit -v)" in done.stderr.splitlines()[-1]
    assert refused or done.returncode == 0, done


def test_an_arm_that_ran_out_of_memory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr(worker, "send", said.append)
    monkeypatch.setattr(worker, "_end_with", lambda parent: None)
    monkeypatch.setattr(worker, "_folder", lambda path: path)
    monkeypatch.setattr(worker.signal, "signal", lambda number, handler: None)
    for error in (
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        RuntimeError("could not create a primitive"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        OSError(12, "Cannot allocate memory"),
    ):

        def work(folder: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(worker, "index", work)
        assert worker.main(["index", str(tmp_path)]) == 3
    assert {event.reason for event in said} == {"out of memory"}


def test_measuring_that_ran_out_of_memory_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "run_worker", lambda *given: "out of memory")
    with assert_refused("out of memory; take a smaller model, close other programs or raise the limit (ulimit -v)"):
        processes.run_or_raise(["measure"], tmp_path / "measure.log", quiet)
