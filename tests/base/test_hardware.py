"""hardware.py on fake system trees (containers of both cgroup versions, ARM, macOS) and on this machine."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import assert_refused

from riyaz import hardware

GB = 2**30
AMX = "processor\t: {n}\nmodel name\t: Intel(R) Xeon(R) 8481C\nflags\t\t: fpu avx avx2 avx512f {more}\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm bf16 sve\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n"


def system(tmp_path: Path, files: dict[str, str]) -> Path:
    """A root folder that holds the given system files."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def meminfo(total: int, available: int) -> str:
    return f"MemTotal: {total // 1024} kB\nMemAvailable: {available // 1024} kB\nHugePages_Total: 0\n"


@pytest.fixture
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


@pytest.mark.usefixtures("sixteen_cores")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, 16, id="no cgroup"),
        pytest.param({"sys/fs/cgroup/cpu.max": "max 100000\n"}, 16, id="v2 without a limit"),
        pytest.param({"sys/fs/cgroup/cpu.max": "350000 100000\n"}, 3, id="v2 rounds down"),
        pytest.param({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1, id="v2 at least one"),
        pytest.param(
            {"sys/fs/cgroup/cpu.max": "200000 100000", "sys/fs/cgroup/pod/box/cpu.max": "max 100000"},
            2,
            id="v2 the parent's limit holds",
        ),
        pytest.param(
            {"sys/fs/cgroup/cpu.max": "800000 100000", "sys/fs/cgroup/pod/box/cpu.max": "400000 100000"},
            4,
            id="v2 the inner limit holds",
        ),
        pytest.param(
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            2,
            id="v1",
        ),
        pytest.param(
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            16,
            id="v1 without a limit",
        ),
    ],
)
def test_cores_are_the_smaller_of_affinity_and_quota(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    groups = {"proc/self/cgroup": "4:cpu,cpuacct:/nowhere\n3:memory:/\n0::/pod/box\n"}
    assert hardware.cores(system(tmp_path, groups | files)) == expected


@pytest.mark.usefixtures("sixteen_cores")
def test_a_group_outside_the_namespace_is_read_at_the_mount(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/../other\n", "sys/fs/cgroup/cpu.max": "200000 100000"}
    assert hardware.cores(system(tmp_path, files)) == 2


def test_affinity_bounds_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 7}, raising=False)
    assert hardware.cores(tmp_path) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert hardware.cores(tmp_path) == 10


def test_memory_without_a_limit_is_the_machine(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": meminfo(16 * GB, 9 * GB),
        "proc/self/cgroup": "3:memory:/box\n",
        "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "9223372036854771712",
    }
    assert hardware.memory(system(tmp_path, files)) == hardware.Memory(16 * GB, 9 * GB)


@pytest.mark.parametrize(
    "files",
    [
        {
            "proc/self/cgroup": "0::/box\n",
            "sys/fs/cgroup/box/memory.max": str(4 * GB),
            "sys/fs/cgroup/box/memory.current": str(3 * GB),
            "sys/fs/cgroup/box/memory.stat": f"anon 7\ninactive_file {GB}\n",
            "sys/fs/cgroup/memory.max": "max",
        },
        {
            "proc/self/cgroup": "3:memory:/box\n",
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": str(4 * GB),
            "sys/fs/cgroup/memory/box/memory.usage_in_bytes": str(3 * GB),
            "sys/fs/cgroup/memory/box/memory.stat": f"inactive_file 3\ntotal_inactive_file {GB}\n",
        },
    ],
    ids=["v2", "v1"],
)
def test_memory_in_a_container_is_the_limit_less_what_cannot_be_dropped(tmp_path: Path, files: dict[str, str]) -> None:
    root = system(tmp_path, files | {"proc/meminfo": meminfo(16 * GB, 9 * GB)})
    assert hardware.memory(root) == hardware.Memory(4 * GB, 2 * GB)


def test_a_full_container_has_no_memory_and_says_so(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": meminfo(16 * GB, 9 * GB),
        "proc/self/cgroup": "0::/box\n",
        "sys/fs/cgroup/box/memory.max": str(GB),
        "sys/fs/cgroup/box/memory.current": str(GB + 1),
    }
    with assert_refused("tiny needs about 1 MB of memory and 0 MB are free"):
        hardware.refuse_memory("tiny", 1, hardware.memory(system(tmp_path, files)).available / hardware.MB, "")


def test_isa_is_what_every_core_has(tmp_path: Path) -> None:
    text = AMX.format(n=0, more="amx_bf16 avx512_bf16") + AMX.format(n=1, more="amx_bf16")
    root = system(tmp_path, {"proc/cpuinfo": text})
    assert hardware.isa(root) == ("avx", "avx2", "avx512f", "amx_bf16")
    assert hardware.cpu_model(root) == "Intel(R) Xeon(R) 8481C"


@pytest.mark.parametrize(
    ("text", "fast"),
    [
        (AMX.format(n=0, more="avx512_vnni avx512vbmi"), False),
        (AMX.format(n=0, more="avx512_bf16"), False),
        (AMX.format(n=0, more="avx512_bf16") + "vendor_id\t: AuthenticAMD\n", True),
        (AMX.format(n=0, more="amx_bf16"), True),
        (ARM, True),
        (ARM.replace("bf16", ""), False),
    ],
)
def test_bf16_is_fast_only_with_instructions_for_it(tmp_path: Path, text: str, fast: bool) -> None:
    assert hardware.bf16_is_fast(system(tmp_path, {"proc/cpuinfo": text})) is fast


def test_a_name_without_a_number_gets_family_and_model(tmp_path: Path) -> None:
    text = "cpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n"
    assert hardware.cpu_model(system(tmp_path, {"proc/cpuinfo": text})) == "AMD EPYC (family 26, model 2)"


def test_arm_linux_has_a_name_without_a_model_name(tmp_path: Path) -> None:
    assert hardware.cpu_model(system(tmp_path, {"proc/cpuinfo": ARM})).endswith("0x41:0xd4f")


def test_macos_is_read_through_sysctl_and_vm_stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "hw.memsize": str(16 * GB),
        "machdep.cpu.brand_string": "Apple M2",
        "hw.optional.AdvSIMD": "1",
        "hw.optional.arm.FEAT_BF16": "1",
        "hw.optional.arm.FEAT_SME": "0",
        "vm_stat": "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:      65536.\nPages active:   400000.\nPages inactive: 131072.\n",
    }
    monkeypatch.setattr(hardware, "_command", lambda *arguments: answers.get(arguments[-1], ""))
    monkeypatch.setattr(hardware.platform, "machine", lambda: "arm64")
    assert hardware.memory(tmp_path) == hardware.Memory(16 * GB, 3 * GB)
    assert hardware.isa(tmp_path) == ("asimd", "bf16")
    assert hardware.bf16_is_fast(tmp_path)
    assert hardware.cpu_model(tmp_path) == "Apple M2"


def test_a_system_that_says_nothing_gives_zeros_not_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "_command", lambda *arguments: "")
    assert hardware.memory(tmp_path) == hardware.Memory(0, 0)
    assert hardware.isa(tmp_path) == ()
    assert isinstance(hardware.cpu_model(tmp_path), str)


def test_a_missing_tool_is_an_empty_answer() -> None:
    assert hardware._command("riyaz-has-no-such-tool") == ""


def test_disk_free_asks_the_nearest_parent_that_exists(tmp_path: Path) -> None:
    assert hardware.disk_free(tmp_path / "not" / "yet" / "there") > 0


def test_peak_rss_grows_with_what_was_touched_and_does_not_shrink() -> None:
    before = hardware.peak_rss()
    block = b"x" * (before + 64 * hardware.MB)
    grown = hardware.peak_rss()
    assert grown >= before + 48 * hardware.MB
    del block
    assert hardware.peak_rss() >= grown - hardware.MB  # the kernel's counters are per thread and rounded


def test_a_childs_peak_is_its_own_and_not_its_parents() -> None:
    child = "from riyaz.hardware import peak_rss; print(peak_rss())"
    parent = f"import subprocess as s, sys; block = b'x' * (200 << 20); s.run([sys.executable, '-c', {child!r}])"
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 100 * hardware.MB


def test_describe_is_json_and_true_of_this_machine() -> None:
    found = json.loads(json.dumps(hardware.describe()))
    assert found["cores"] >= 1
    assert found["cpu"]
    assert found["memory_total_mb"] >= found["memory_available_mb"] > 0
    assert found["disk_free_mb"] > 0
    flags = set(found["isa"])
    assert found["bf16_is_fast"] or not hardware.BF16 & flags
    assert not found["bf16_is_fast"] or (hardware.BF16 | {"avx512_bf16"}) & flags  # the latter on AMD's


def test_threads_are_those_asked_for_or_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, threads in (("3", 3), ("4,2", 4), ("0", hardware.cores()), ("many", hardware.cores())):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert hardware.threads() == threads
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert hardware.threads() == hardware.cores()


def test_a_process_is_as_old_as_since_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = system(tmp_path, {"proc/self/stat": f"7 (a ) b) S {' '.join(map(str, range(4, 53)))}\n"})  # field by number
    with monkeypatch.context() as patch:
        patch.setattr(hardware.system.time, "clock_gettime", lambda clock: 500.0)
        assert hardware.process_seconds(root) == 500.0 - 22 / os.sysconf("SC_CLK_TCK"), "the 22nd field is its start"
    if Path("/proc/self/stat").exists():
        child = "from riyaz.hardware import process_seconds; print(process_seconds())"
        done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
        assert 0 < float(done.stdout) < hardware.process_seconds(), "this process is the older one"
    assert hardware.process_seconds(tmp_path / "other") == 0.0, "a system that does not say"


def test_cpu_time_is_the_sum_over_threads(tmp_path: Path) -> None:
    root = system(tmp_path, {
        "proc/self/task/7/schedstat": "3000000000 1000000000 12\n",
        "proc/self/task/8/schedstat": "1000000000 500000000 3\n",
        "proc/self/task/9/schedstat": "",  # ended meanwhile
    })  # fmt: skip
    before = hardware.CpuTime(ran=1.0, waited=0.5)
    after = hardware.cpu_time(root)
    assert after == hardware.CpuTime(ran=4.0, waited=1.5)
    assert hardware.share_waited(before, after) == 0.25
    assert hardware.share_waited(after, after) is None, "nothing ran between"
    assert hardware.cpu_time(tmp_path / "other") is None, "a system that does not count"
    assert hardware.share_waited(None, after) is None and hardware.share_waited(before, None) is None


def test_a_busy_process_counts_its_own_cpu_time() -> None:
    before = hardware.cpu_time()
    if before is None:
        assert not Path("/proc/self/task").exists() or not list(Path("/proc/self/task").glob("*/schedstat"))
        return
    assert sum(range(1_000_000))  # work
    after, used = hardware.cpu_time(), resource.getrusage(resource.RUSAGE_SELF)
    assert after is not None and before.ran < after.ran and before.waited <= after.waited
    assert after.ran <= used.ru_utime + used.ru_stime, "that of threads that have ended too"
    share = hardware.share_waited(before, after)
    assert share is not None and 0 <= share < 1
