"""Of the processes of a comparison only those that measure and train import torch, and none uses the network."""

import pytest
from conftest import Finished


@pytest.mark.slow
def test_of_a_comparison_only_measuring_and_training_import_torch(finished: Finished) -> None:
    lines = [line.split() for line in finished.torch]
    seen = {(work, "" if work == "measure" else arm) for work, _, arm, *_ in lines}
    trained = ("prompt_tuning", "lora", "full")
    assert {("fit", name) for name in trained} <= seen, "who imports it is seen"
    assert seen <= {("measure", ""), *((work, name) for work in ("fit", "open") for name in trained)}
    assert not finished.network
