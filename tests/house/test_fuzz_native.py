"""The fuzz targets of native/fuzz, a second or two each, and the threads of the engine under ThreadSanitizer."""

import subprocess
from pathlib import Path

import fuzz_native
import pytest

CLANG = fuzz_native.compiler()
WHY = "no clang with libFuzzer and the sanitizers; apt-get install clang libclang-rt-dev"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built() -> None:
    if not CLANG:
        pytest.skip(WHY)
    fuzz_native.build(CLANG)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("target", fuzz_native.TARGETS)
def test_inputs_that_once_failed_and_some_of_others(target: str, tmp_path: Path) -> None:
    inputs = 500 if target == "forward" else 3000
    ran, crash = fuzz_native.part(target, seed=3, inputs=inputs, seconds=None, found=tmp_path)
    assert not crash, crash[-3000:]
    assert any((fuzz_native.CORPUS / target).iterdir()) and ran >= inputs


@pytest.mark.usefixtures("built")
def test_a_crash_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "#include <cstddef>\n#include <cstdint>\n"
        'extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { return size && data[size] == 7; }\n'
    )
    program = str(tmp_path / "fuzz_broken")
    command = [str(CLANG), "-fsanitize=fuzzer,address", "-x", "c++", "-", "-o", program]
    subprocess.run(command, input=source.encode(), check=True)
    monkeypatch.setattr(fuzz_native, "FOLDER", tmp_path)
    ran, crash = fuzz_native.part("broken", seed=1, inputs=100, seconds=None)
    assert "heap-buffer-overflow" in crash and ran < 100


def test_threads_make_no_race() -> None:
    if not CLANG:
        pytest.skip(WHY)
    folder = fuzz_native.ROOT / "build/fuzz-threads"
    fuzz_native.build(CLANG, folder, "check_threads", ("THREADS",))
    done = subprocess.run([folder / "check_threads", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    parts = ("pool", "models", "encoder", "memory", "training")
    assert done.stdout.splitlines() == [f"{name}: right" for name in parts]
