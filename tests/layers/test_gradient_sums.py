"""Sums of gradients are of whole weights: what FSDP2 shards is refused, before training and in it."""

from collections.abc import Iterator

import pytest
import torch
from small_llama import counting_rows, small_model
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from riyaz.data.packing import pack
from riyaz.errors import RiyazError
from riyaz.layers.fast.masters import Masters
from riyaz.layers.swaps import frozen, lora, ternary
from riyaz.train import answer_nats


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def test_sharded_weights_are_refused_by_name(mesh: DeviceMesh) -> None:
    model = small_model().requires_grad_(True)
    fully_shard(model, mesh=mesh)
    assert isinstance(model.lm_head.weight, DTensor)
    with pytest.raises(RiyazError) as refused:
        Masters(model, torch.bfloat16)
    assert str(refused.value).startswith("model.embed_tokens.weight: a DTensor cannot be trained")
    assert "train the model before fully_shard" in refused.value.hint


def test_one_sharded_weight_is_found_among_whole_ones(mesh: DeviceMesh) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[1].weight = nn.Parameter(distribute_tensor(model[1].weight.detach(), mesh))
    with pytest.raises(RiyazError, match="a DTensor cannot be trained") as refused:
        Masters(model, torch.float32)
    assert refused.value.where == "1.weight"
    model[1].weight.requires_grad_(False)
    Masters(model, torch.float32).detach()


@pytest.mark.parametrize("kind", ["full", "ternary", "lora"])
def test_a_model_sharded_in_training_is_refused(kind: str, mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its forward pass computes with other weights than those that the optimiser steps."""
    model = small_model().requires_grad_(kind != "lora")
    if kind == "ternary":
        ternary.apply(model)
    if kind == "lora":
        monkeypatch.setenv("RIYAZ_FROZEN", "int8")
        frozen.encode(model)
        lora.apply(model, r=4, alpha=8, seed=0)
    masters = Masters(model, torch.float32)
    answer_nats(model, pack(counting_rows()[:2]), masters.sums).backward()
    assert masters.norm() > 0
    fully_shard(model, mesh=mesh)
    with pytest.raises(RiyazError, match="has replaced the one that the optimiser steps"):
        answer_nats(model, pack(counting_rows()[:2]), masters.sums).backward()
