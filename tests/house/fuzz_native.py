"""Builds the fuzz targets of native/fuzz with clang and runs them: libFuzzer under AddressSanitizer and
UndefinedBehaviorSanitizer.

    python tests/house/fuzz_native.py all --seconds 600                     # `make fuzz-native`: so long together
    python tests/house/fuzz_native.py cache --inputs 10000000 --seed 1

A target begins with its inputs in native/fuzz/corpus and keeps those that reach new code in build/fuzz. A run with
--inputs is cut into parts of PART inputs or PART_SECONDS, part P with the seed `seed + P`; the same command goes on
behind the last whole part. --seconds then says when to stop.
Prints a line for each target: inputs, seconds, inputs per second; exit status 1 at a crash, whose input is named.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build/fuzz"
CORPUS = ROOT / "native/fuzz/corpus"
TARGETS = sorted(path.stem for path in (ROOT / "native/fuzz").glob("*.cpp"))
PART, PART_SECONDS = 250_000, 120  # inputs, and how long they may take
LONGEST = 64  # bytes of an input
COMPILERS = ("clang++", *(f"clang++-{version}" for version in range(22, 15, -1)))
# Blocks that were freed are kept for a while, so that their use is seen, and so are those who took them
CHECKS = {
    "ASAN_OPTIONS": "quarantine_size_mb=4:malloc_context_size=4:detect_leaks=0:hard_rss_limit_mb=3000",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def compiler() -> str | None:
    """A clang++ that has libFuzzer and the sanitizers, or None (Debian: clang libclang-rt-dev)."""
    for name in COMPILERS:
        if not (path := shutil.which(name)):
            continue
        source = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }'
        command = [path, "-fsanitize=fuzzer,address,undefined", "-x", "c++", "-", "-o", os.devnull]
        if not subprocess.run(command, input=source.encode(), capture_output=True, check=False).returncode:
            return path
    return None


def build(
    clang: str, folder: Path = FOLDER, target: str = "fuzz_targets", options: tuple[str, ...] = ("SANITIZE", "FUZZ")
) -> None:
    """Compiles programs, by default the targets into build/fuzz: a minute and a half on two cores, seconds where
    nothing changed."""
    settings = ["-DRIYAZ_PYTHON=OFF", *(f"-DRIYAZ_{name}=ON" for name in options)]
    if platform.machine() in ("x86_64", "AMD64"):
        settings.append("-DRIYAZ_ISAS=scalar;avx512bf16")
    command = [sys.executable, "native/build_backend.py", "--folder", str(folder), "--target", target, *settings]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"CXX": clang}, stdout=sys.stderr, check=True)


def part(
    target: str, seed: int, inputs: int | None, seconds: float | None, found: Path | None = None
) -> tuple[int, str]:
    """Inputs of one run of a target, and its report if it crashed, else nothing. Inputs that reach new code are read
    from and kept in `found`, by default in build/fuzz."""
    found = found or FOLDER / "corpus" / target
    found.mkdir(parents=True, exist_ok=True)
    command = [str(FOLDER / f"fuzz_{target}"), f"-seed={seed}", f"-max_len={LONGEST}", "-print_final_stats=1"]
    # libFuzzer's own limit of memory counts what the process that started it had at most; that of ASan stands in CHECKS
    command += ["-rss_limit_mb=0", "-malloc_limit_mb=3000", f"-artifact_prefix={FOLDER}/{target}-", "-verbosity=1"]
    command += [f"-runs={inputs}"] if inputs else []
    command += [f"-max_total_time={max(1, round(seconds))}"] if seconds else []
    folders = [str(found), *([str(CORPUS / target)] if (CORPUS / target).exists() else [])]
    done = subprocess.run([*command, *folders], env=os.environ | CHECKS, capture_output=True, text=True, check=False)
    ran = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    return int(ran[1]) if ran else 0, done.stderr if done.returncode else ""


def fuzz(target: str, seed: int, inputs: int | None, seconds: float | None) -> bool:
    """Runs a target until either limit and prints its line; returns whether it crashed."""
    state = FOLDER / f"{target}-{seed}.json"
    known = json.loads(state.read_text()) if inputs and state.exists() else {"parts": 0, "inputs": 0, "seconds": 0.0}
    begun, crash = time.monotonic(), ""
    while not crash and (not inputs or known["inputs"] < inputs):
        start = time.monotonic()
        left = seconds - (start - begun) if seconds else None
        if left is not None and left < 1:
            break
        each, most = (
            (min(PART, inputs - known["inputs"]), min(PART_SECONDS, left or PART_SECONDS)) if inputs else (None, left)
        )
        ran, crash = part(target, seed + known["parts"], each, most)
        known["inputs"], known["seconds"] = known["inputs"] + ran, known["seconds"] + time.monotonic() - start
        known["parts"] += 1
        if inputs and not crash:
            state.write_text(json.dumps(known))
    ended, total, taken = "a crash" if crash else "0 crashes", known["inputs"], known["seconds"]
    print(f"{target}: {total} inputs in {taken:.0f} s ({total / max(taken, 1e-9):.0f} a second), seed {seed}, {ended}")
    if crash:
        print(crash[-6000:])
    return bool(crash)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--inputs", type=int, help="of each target")
    parser.add_argument("--seconds", type=float, help="of all targets together; 60 where there is no --inputs")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    clang = compiler()
    if not clang:
        sys.exit("error: no clang++ with libFuzzer was found (Debian: apt-get install clang libclang-rt-dev)")
    build(clang)
    targets = TARGETS if options.target == "all" else [options.target]
    seconds = options.seconds or (None if options.inputs else 60.0)
    each = seconds / len(targets) if seconds else None
    crashed = [fuzz(target, options.seed, options.inputs, each) for target in targets]
    sys.exit(any(crashed))


if __name__ == "__main__":
    main()
