"""Tensors that training's kernels take: torch's by DLPack's C functions or, where it has none, by capsules; numpy's."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from riyaz import native

WITHOUT = """
import torch
del torch.Tensor.__dlpack_c_exchange_api__
from riyaz import native
total, x = torch.ones(40), torch.arange(40.0)
native.extension().add_scaled(total[2:], x[1:39], 2.0, 1)
assert total.tolist() == [1.0, 1.0] + [1 + 2 * (i + 1) for i in range(38)], total
try:
    native.extension().add_scaled(total[::2], x[:20], 2.0, 1)
except TypeError:
    print("refused")
"""


def add(total: object, x: object) -> None:
    """total += 2 x by the extension."""
    native.extension().add_scaled(total, x, 2.0, 1)


def test_a_part_of_a_tensor_is_taken_where_it_lies() -> None:
    total, x = torch.ones(40), torch.arange(40.0).bfloat16()
    add(total[2:], x[1:39])
    assert total.tolist() == [1.0, 1.0] + [1 + 2 * (i + 1) for i in range(38)]


def test_a_parameter_is_taken() -> None:
    total, x = torch.ones(3), torch.nn.Parameter(torch.ones(3), requires_grad=False)
    add(total, x)
    assert total.tolist() == [3.0] * 3


def test_an_array_of_numpy_is_taken() -> None:
    total = np.ones(4, np.float32)
    add(total, np.arange(4, dtype=np.float32))
    assert total.tolist() == [1.0, 3.0, 5.0, 7.0]


@pytest.mark.parametrize("total", [
    torch.ones(8)[::2], torch.ones(4, dtype=torch.float64), torch.ones(2, 2), torch.ones(4, device="meta"), [1.0] * 4,
    np.ones(4), None,
], ids=["apart", "float64", "two dimensions", "meta", "list", "numpy float64", "none"])  # fmt: skip
def test_others_are_refused(total: object) -> None:
    with pytest.raises(TypeError, match="incompatible function arguments"):
        add(total, torch.ones(4))


def test_a_torch_without_the_functions_hands_out_capsules() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
