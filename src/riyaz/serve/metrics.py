"""Counters and histograms in Prometheus' text format, under vLLM's names with `riyaz:` before them."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from riyaz.engine.lookup import Counts

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts of seconds in buckets."""

    def __init__(self) -> None:
        self._counts = [0] * (len(SECONDS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(SECONDS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str) -> Iterable[str]:
        """The lines of this histogram."""
        total = 0
        for bound, count in zip((*SECONDS, "+Inf"), self._counts):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {total}"


@dataclass(eq=False)
class Metrics:
    """What was counted since the start; only the event loop writes."""

    started: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generation_tokens: int = 0
    refused: int = 0
    success: Counter[str] = field(default_factory=Counter)  # by the reason of the answer's end
    failed: Counter[int] = field(default_factory=Counter)  # by status
    cancelled: int = 0
    first_token: Histogram = field(default_factory=Histogram)
    between_tokens: Histogram = field(default_factory=Histogram)
    whole: Histogram = field(default_factory=Histogram)
    queued: Histogram = field(default_factory=Histogram)

    def lines(self, now: Mapping[str, float], adapters: Iterable[str], lookup: Counts) -> str:
        """The text of /metrics; `now` holds the gauges, `adapters` names the server itself has checked, `lookup` what
        came of drafts."""
        said: list[str] = []

        def add(kind: str, name: str, help_: str, lines: Iterable[str]) -> None:
            said.extend([f"# HELP riyaz:{name} {help_}", f"# TYPE riyaz:{name} {kind}", *lines])

        for name, value, help_ in (
            ("prompt_tokens_total", self.prompt_tokens, "Tokens of prompts."),
            ("prompt_tokens_cached_total", self.cached_tokens, "Tokens of prompts that were kept from earlier ones."),
            ("generation_tokens_total", self.generation_tokens, "Tokens of answers."),
            ("spec_decode_num_draft_tokens_total", lookup.drafted, "Tokens of drafts of prompt lookup."),
            ("spec_decode_num_accepted_tokens_total", lookup.accepted, "Those of them that were right."),
            ("requests_refused_total", self.refused, "Requests refused because the queue was full."),
            ("requests_cancelled_total", self.cancelled, "Requests whose client left."),
        ):
            add("counter", name, help_, [f"riyaz:{name} {value}"])
        reasons = [f'riyaz:request_success_total{{finished_reason="{r}"}} {n}' for r, n in sorted(self.success.items())]
        add("counter", "request_success_total", "Answers by the reason of their end.", reasons)
        statuses = [f'riyaz:request_errors_total{{status="{s}"}} {n}' for s, n in sorted(self.failed.items())]
        add("counter", "request_errors_total", "Responses that were errors, by status.", statuses)
        for name, histogram, help_ in (
            ("time_to_first_token_seconds", self.first_token, "From the request to its first token."),
            ("inter_token_latency_seconds", self.between_tokens, "Between two tokens of an answer."),
            ("e2e_request_latency_seconds", self.whole, "From the request to the end of its answer."),
            ("queue_time_seconds", self.queued, "From the request to its start."),
        ):
            add("histogram", name, help_, histogram.lines(f"riyaz:{name}"))
        for name, level in now.items():
            add("gauge", name, f"{name.replace('_', ' ').capitalize()} now.", [f"riyaz:{name} {level:g}"])
        loaded = [f'riyaz:adapter_loaded{{name="{name}"}} 1' for name in adapters]
        add("gauge", "adapter_loaded", "Models that are served.", loaded)
        return "\n".join(said) + "\n"
