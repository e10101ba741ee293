"""A small form of the soak: a tiny model under load, the same requests alone, and what each limit sees."""

import argparse
import asyncio
from pathlib import Path

import httpx
import pytest
import soak
import tiny_bert
from soak import KEY, KINDS, Load, Server, request


@pytest.mark.slow
def test_answers_are_the_same_under_load_and_alone(model_folder: Path, own_store: Path, tmp_path: Path) -> None:
    tiny_bert.keep(own_store)
    arguments = argparse.Namespace(requests=6 * len(KINDS), clients=12, again=66, seed=3)
    server = Server(str(model_folder), tmp_path, "")
    headers = {"authorization": f"Bearer {KEY}"}

    async def asked() -> tuple[Load, list[str], list[str], list[str]]:
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as client:
            model = str((await client.get("/v1/models")).json()["data"][0]["id"])
            outcome = await soak.load(server, client, arguments, model)
            wrong = await soak.differing(client, outcome, arguments.seed, model)
            number = next(iter(outcome.kept))
            changed = Load(kept={number: {**outcome.kept[number], "choices": []}})
            seen = await soak.differing(client, changed, arguments.seed, model)
            return outcome, wrong, seen, await soak.stop(server, client, arguments, model)

    try:
        outcome, wrong, seen, stopped = asyncio.run(asked())
    finally:
        server.process.kill()
        server.process.wait()
    assert outcome.failures == [] and wrong == [] and stopped == []
    assert outcome.statuses == {200: arguments.requests} and len(outcome.kept) == arguments.requests * 9 // 11
    assert len(seen) == 1, "an answer that is another one is seen"


def test_requests_of_a_seed_are_always_the_same_and_of_every_kind() -> None:
    asked = [request(1, number, "tiny") for number in range(len(KINDS))]
    assert asked == [request(1, number, "tiny") for number in range(len(KINDS))]
    assert [each.kind for each in asked] == list(KINDS)
    assert asked != [request(2, number, "tiny") for number in range(len(KINDS))]


def test_waits_that_grow_are_seen() -> None:
    assert soak.slower([0.1] * 100) == pytest.approx(1)
    assert soak.slower([*([0.1] * 90), *([0.3] * 10)]) == pytest.approx(3)
