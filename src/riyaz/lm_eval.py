"""Riyaz as a model of lm-eval (EleutherAI's LM Evaluation Harness), in this process and without torch.

    python -m riyaz.lm_eval run --model riyaz --model_args pretrained=smollm2-135m,precision=fp32 --tasks arc_easy
    lm_eval.simple_evaluate(model=RiyazLM("smollm2-135m"), tasks=["arc_easy"])  # from riyaz.lm_eval import RiyazLM

Tokens, windows and cuts are those of lm-eval's Hugging Face backend, so that the figures can be compared.
"""

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from riyaz.engine.request import Request, Sampling
from riyaz.errors import RiyazError, brief
from riyaz.extras import install
from riyaz.predictor import open_target
from riyaz.predictor.prompt import SHORTEST_PREFIX
from riyaz.report.media.markup import printable_line

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ModuleNotFoundError as error:
    missing = RiyazError("lm-eval is not installed", hint=install("lm-eval"))
    if __name__ == "__main__":
        print(f"error: {missing}", file=sys.stderr)
        sys.exit(2)
    raise missing from error

LOG = logging.getLogger(__name__)
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # names of one thing, first counts
SAMPLED = ("temperature", "top_k", "top_p", "min_p", "seed", "repetition_penalty")
ARGUMENTS = ("pretrained", "precision", "kv", "base", "max_gen_toks")
IGNORED = ("batch_size", "max_batch_size", "device", "trust_remote_code")  # which lm-eval gives every model
Scored = tuple[tuple[str, str] | None, list[int], list[int]]  # texts, tokens before, tokens to score


@register_model("riyaz")
class RiyazLM(TemplateLM):
    """A model, an adapter or an artifact by name or path. The texts of tasks go to its weights as they are; with
    lm-eval's chat template an artifact's instruction, examples and passages stand around them."""

    def __init__(
        self, pretrained: str = "", precision: Any = "auto", kv: Any = "auto", base: str | None = None,
        max_gen_toks: int = 256, **other: object,
    ) -> None:  # fmt: skip
        super().__init__()
        unknown = [name for name in other if name not in IGNORED]
        if unknown or not pretrained:
            what = f"unknown {brief(unknown[0])}" if unknown else "pretrained is missing"
            raise RiyazError(what, "--model_args", f"choose from {', '.join(ARGUMENTS)}")
        predictor = open_target(pretrained, base, precision, kv)
        if not predictor.has_model:
            raise RiyazError("no language model answers, so there are no log-probabilities", pretrained)
        self.model, self.name, self.max_gen_toks = predictor, pretrained, int(max_gen_toks)
        self.max_length = predictor.context

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.model.tokenizer.end_of_text

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without anything before it."""
        beginning = self.model.tokenizer.bos_id
        return self.eot_token_id if beginning is None else beginning

    @property
    def tokenizer_name(self) -> str:
        """By what lm-eval keeps its requests apart."""
        return self.name.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template that `apply_chat_template` writes."""
        return self.model.tokenizer.template if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The text that the model reads for a conversation; without a prompt for an answer its last turn goes on."""
        turns, begun = (chat_history, "") if add_generation_prompt else (chat_history[:-1], chat_history[-1]["content"])
        return self.model.tokenizer.render_texts(self.model.conversations([turns]))[0] + begun

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """The tokens of a text, in which control tokens are recognised; the beginning is put before it once."""
        (ids,) = self.model.tokenizer.encode_written([string])
        beginning = list(self.model.tokenizer.beginning)
        return ids if add_special_tokens is False or ids[: len(beginning)] == beginning else beginning + ids

    def _loglikelihood_tokens(
        self, requests: Sequence[Scored], disable_tqdm: bool = False, **_: object
    ) -> list[tuple[float, bool]]:
        """The log-probability of each continuation in nats, and whether every token of it is the likeliest."""
        prompts, ends = self._requests(requests)
        scores = []
        for (texts, _before, _after), ids, rows in zip(requests, ends, self.model.lm.distributions(prompts, ends)):
            total = float(rows[np.arange(len(ids)), ids].sum(dtype=np.float64))
            scores.append((total, bool((rows.argmax(axis=-1) == ids).all())))
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, scores[-1])
        return scores

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each text in nats, in windows as long as the context."""
        windows: list[Scored] = []
        owners = []
        for owner, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            for window in get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1):
                windows.append((None, *make_disjoint_window(window)))
                owners.append(owner)
        parts = self.model.lm.logprobs(*self._requests(windows))
        totals = [0.0] * len(requests)
        for owner, part in zip(owners, parts):
            totals[owner] += float(part.sum(dtype=np.float64))
        return totals

    def _requests(self, scored: Sequence[Scored]) -> tuple[list[Request], list[list[int]]]:
        """Requests to the engine and what is scored after each; what several have before it is read once."""
        shared = Counter(tuple(before) for _, before, _ in scored)
        requests, ends = [], []
        for number, (_, before, after) in enumerate(scored):
            if len(after) > self.max_length:
                raise RiyazError(f"{len(after):,} tokens to score do not fit the context of {self.max_length:,}")
            prompt = tuple(before[-(self.max_length + 1 - len(after)) :])
            if len(prompt) < len(before):
                LOG.warning(f"{len(before) - len(prompt)} tokens are cut off from the left of a text too long")
            cut = len(prompt) - 1 if shared[tuple(before)] > 1 and len(prompt) > SHORTEST_PREFIX else 0
            requests.append(Request(number, prompt[cut:], prefix=prompt[:cut], adapter=self.model.adapter))
            ends.append(after)
        return requests, ends

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The continuation of each text up to the first of its stop texts, the likeliest or drawn."""
        prompts, stops = [], []
        for number, request in enumerate(requests):
            text, wanted = request.args
            limit, sampling, until = _generation(wanted, self.max_gen_toks)
            longest = self.max_length - limit
            if longest < 1:
                what = f"{limit:,} tokens to write do not fit the context of {self.max_length:,}"
                raise RiyazError(what, "max_gen_toks", "write fewer")
            ids = self.tok_encode(text)
            if len(ids) > longest:
                LOG.warning(f"{len(ids) - longest} tokens are cut off from the left of a text too long")
            prompts.append(Request(
                number, tuple(ids[-longest:]), adapter=self.model.adapter, limit=limit, sampling=sampling,
                stop=self.model.tokenizer.eos_ids,
            ))  # fmt: skip
            stops.append(until)
        texts = self._generated(prompts, stops)
        for request, text in zip(requests, texts):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def _generated(self, requests: Sequence[Request], stops: Sequence[Sequence[str]]) -> list[str]:
        """The answers, each ended as soon as it holds one of its stop texts."""
        lm, tokens = self.model.lm, [list[int]() for _ in requests]
        left = {lm.add(request): place for place, request in enumerate(requests)}
        try:
            while left:
                for step in lm.step():
                    if step.ticket not in left:
                        continue
                    place = left[step.ticket]
                    if step.error is not None:
                        raise step.error
                    if step.token is not None:
                        tokens[place].append(step.token)
                    text = self.model.tokenizer.decode(tokens[place]) if stops[place] else ""
                    if step.done or any(stop in text for stop in stops[place]):
                        lm.cancel(step.ticket)  # of no effect on one that is done
                        del left[step.ticket]
        finally:
            for ticket in left:
                lm.cancel(ticket)
        return [_until(self.model.tokenizer.decode(ids), stop) for ids, stop in zip(tokens, stops)]


def _generation(wanted: dict[str, Any], usual: int) -> tuple[int, Sampling, list[str]]:
    """Most tokens, how they are chosen, and the stop texts of a task's `generation_kwargs`. Raises RiyazError."""
    unknown = set(wanted) - {*LENGTHS, *SAMPLED, "until", "do_sample"}
    if unknown:
        hint = f"choose from until, do_sample, {', '.join((*LENGTHS[:1], *SAMPLED))}"
        raise RiyazError(f"unknown {brief(min(unknown))}", "generation_kwargs", hint)
    limit = next((int(wanted[name]) for name in LENGTHS if wanted.get(name) is not None), usual)
    until = wanted.get("until") or []
    how = {name: wanted[name] for name in SAMPLED if wanted.get(name) is not None}
    drawn_at = float(how.pop("temperature", 1.0 if wanted.get("do_sample") else 0.0))
    temperature = drawn_at if wanted.get("do_sample", True) else 0.0
    return limit, Sampling(temperature, **how), [until] if isinstance(until, str) else [each for each in until if each]


def _until(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.split(stop)[0]
    return text


def main() -> int:
    """lm-eval's own command line, which knows the model `riyaz` too."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except RiyazError as error:
        print(f"error: {printable_line(str(error))}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
