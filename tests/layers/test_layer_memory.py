"""Memory of large results: aligned, of the type asked for, and in blocks that fit the next one."""

import subprocess
import sys

import pytest
import torch

from riyaz.layers.fast.memory import ALIGNED, LARGE, empty, empty_like

HELD = 1.25  # times the memory of the tensors that are alive, at most, beside freed ones
ALTERNATING = """
import sys
from riyaz.hardware import peak_rss
from riyaz.layers.fast.memory import empty
import torch
allocate = empty if sys.argv[1] == "ours" else torch.empty
shape, alive = (1024, 512), []  # 2 MB in float32
for _ in range(2):  # glibc takes blocks of this size from its heap once it has seen one freed
    allocate(shape, dtype=torch.float32).zero_()
before = peak_rss()
for _ in range(100):
    passing = allocate(shape, dtype=torch.float32).zero_()
    alive.append(allocate(shape, dtype=torch.float32).zero_())
    del passing
print((peak_rss() - before) / (100 * 2**21))
"""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, LARGE // 64, LARGE // 64 + 1])
def test_tensors_are_plain_and_aligned(dtype: torch.dtype, rows: int) -> None:
    found = empty((rows, 8, 4), dtype)
    assert found.shape == (rows, 8, 4) and found.dtype == dtype and found.is_contiguous()
    assert found.data_ptr() % ALIGNED == 0 and not found._is_view()
    found.fill_(3)
    other = empty_like(found).fill_(4)
    assert (found == 3).all() and (other == 4).all() and other.shape == found.shape


def test_freed_blocks_are_taken_again() -> None:
    """One of two tensors is freed at once, as the outputs of norms are beside the inputs that backward needs."""
    run = subprocess.run([sys.executable, "-c", ALTERNATING, "ours"], capture_output=True, text=True, check=True)
    assert float(run.stdout) < HELD
