"""Clients that nobody here wrote ask typed questions: OpenAI's, plain, raw and asynchronous, with strict validation."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from live_server import Running, running
from waiting import HANG

from riyaz.serve.opening import Opener

QUESTIONS: list[Any] = [
    {"type": "predicate", "instructions": "Is it about money?", "name": "money"},
    {"type": "choice", "instructions": "Which team?", "choices": [{"value": "billing"}, {"value": False}]},
    {"type": "score", "instructions": "How angry?", "levels": [{"label": "calm"}, {"label": "cross"}], "name": "mood"},
]


@pytest.fixture(scope="module")
def served(model_folder: Path) -> Iterator[Running]:
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener) as found:
        yield found


def test_the_raw_answer_parses_to_the_same(served: Running) -> None:
    plain = served.openai.decisions.create(model="tiny", input="the order", questions=QUESTIONS)
    raw = served.openai.decisions.with_raw_response.create(model="tiny", input="the order", questions=QUESTIONS)
    assert raw.parse().answers == plain.answers and raw.headers.get("x-riyaz-ignored") is None
    with served.openai.decisions.with_streaming_response.create(
        model="tiny", input="the order", questions=QUESTIONS
    ) as streamed:
        assert streamed.parse().answers == plain.answers
    assert [answer.type for answer in plain.answers] == ["predicate", "choice", "score"]
    assert isinstance(plain.answers[1].choice, str | bool)  # type: ignore[union-attr]


def test_four_hundred_questions_come_back_in_their_order(served: Running) -> None:
    many: list[Any] = [{**QUESTIONS[0], "name": f"n{place}"} for place in range(400)]
    made = served.openai.decisions.create(model="tiny", input="the order", questions=many)
    assert [answer.name for answer in made.answers] == [f"n{place}" for place in range(400)]
    assert len({answer.probability for answer in made.answers}) == 1  # type: ignore[union-attr]


def test_many_clients_get_what_one_gets(served: Running) -> None:
    texts = [f"order {place}" for place in range(6)]
    wanted = [served.openai.decisions.create(model="tiny", input=text, questions=QUESTIONS).answers for text in texts]

    async def all_at_once() -> list[Any]:
        async with openai.AsyncOpenAI(
            base_url=f"{served.url}/v1", api_key="x", max_retries=0, _strict_response_validation=True
        ) as client:
            asked = (client.decisions.create(model="tiny", input=text, questions=QUESTIONS) for text in texts)
            return await asyncio.gather(*asked)

    assert [made.answers for made in asyncio.run(all_at_once())] == wanted


def test_every_kind_of_item_of_the_client_is_read(served: Running) -> None:
    items: list[Any] = [
        {"role": "system", "content": "Judge."},
        {"role": "user", "content": [{"type": "input_json", "data": [{"order": 1}]}]},
        {"type": "function_call", "call_id": "a", "name": "get", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "late"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "It is late."}], "phase": "final_answer"},
    ]
    options: Any = {"prompt_cache_options": {"mode": "implicit"}, "safety_identifier": "s", "prompt_cache_key": "k"}
    made = served.openai.decisions.create(model="tiny", input=items, questions=QUESTIONS, **options)
    told = (
        'system: Judge.\n\nuser: [{"order": 1}]\n\nassistant: Call of get: {}\n\n'
        "user: Output of get: late\n\nassistant: It is late."
    )
    again = served.openai.decisions.create(model="tiny", input=told, questions=QUESTIONS)
    assert made.answers == again.answers, "bit by bit, though the second is read from kept pages"
    assert made.usage.input_tokens == again.usage.input_tokens > again.usage.input_tokens_details.cached_tokens > 0


def test_the_pages_own_code_runs(served: Running) -> None:
    text = (Path(__file__).parents[2] / "docs/serving.md").read_text("utf-8")
    (block,) = [each for each in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) if "client.decisions" in each]
    client = f'from openai import OpenAI\nclient = OpenAI(base_url="{served.url}/v1", api_key="none")\n'
    code = client + block.replace('model="workshop"', 'model="tiny"')
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    probability, choice, score = done.stdout.split()
    assert 0 <= float(probability) <= 1 and choice in ("billing", "workshop") and 0 <= float(score) <= 1


def test_errors_are_the_clients_own(served: Running) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        served.openai.decisions.create(model="tiny", input="a", questions=[*QUESTIONS, QUESTIONS[0]])
    assert refused.value.param == "questions.3.name" and "'money'" in str(refused.value)
    with pytest.raises(openai.NotFoundError):
        served.openai.decisions.create(model="gpt-6-luna", input="a", questions=QUESTIONS)
