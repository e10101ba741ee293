"""Progress of a run: metrics.jsonl and the progress bar."""

import math
import statistics
import time
from collections import deque
from dataclasses import replace

from riyaz import hardware
from riyaz.events import Event, Progress
from riyaz.json_files import Lines
from riyaz.pretraining import plan as planning
from riyaz.pretraining.plan import PretrainingPlan
from riyaz.pretraining.running import Running
from riyaz.results import ELSEWHERE, METRICS, SAMPLES, PretrainRun, RunCost

WINDOW = 20  # steps whose median time gives the speed, so that a slow validation step does not count


class Watch:
    """Writes each step to metrics.jsonl and adds speed, share of the peak and bits per byte to the progress bar."""

    def __init__(
        self, run: Running[PretrainRun], plan: PretrainingPlan, peak_flops: float, rows: int, bytes_per_token: float
    ) -> None:
        self.run, self.plan, self.peak_flops = run, plan, peak_flops
        self.rows, self.ratio = rows, bytes_per_token
        self.metrics, self.samples = (
            Lines(run.folder.path / METRICS, "seconds", optional=("bits_per_byte",), hint=ELSEWHERE),
            Lines(run.folder.path / SAMPLES, hint=ELSEWHERE),
        )
        self.earlier = self.metrics.entries()
        self.before: float | None = None  # seconds of earlier commands, up to the step that this one resumes from
        self.began = self.last = time.perf_counter()
        self.durations: deque[float] = deque(maxlen=WINDOW)
        self.seconds = 0.0
        self.bits_per_byte: float | None = None

    def listen(self, event: Event) -> None:
        """Record a training step and forward it; other events are forwarded unchanged."""
        if not isinstance(event, Progress) or event.metrics is None:
            self.run.listen(event)
            return
        entry = dict(event.metrics)
        step = self.run.step = entry["step"]
        now = time.perf_counter()
        if self.before is None:
            earlier = [line for line in self.earlier if line["step"] < step]
            self.before = earlier[-1]["seconds"] if earlier else 0.0
            bits = [line["bits_per_byte"] for line in earlier if "bits_per_byte" in line]
            self.bits_per_byte = bits[-1] if bits else None
        self.durations.append(now - self.last)
        self.last, self.seconds = now, self.before + now - self.began
        tokens_s = self._tokens(step, step - 1) / statistics.median(self.durations)
        share = tokens_s * self.plan.flops_per_token / self.peak_flops
        entry |= {"seconds": self.seconds, "tokens_s": tokens_s, "peak_share": share}
        if "valid_loss" in entry:
            entry["bits_per_byte"] = self.bits_per_byte = bits_per_byte(entry["valid_loss"], self.ratio)
        self.metrics.add(entry)
        quality = f"{self.bits_per_byte:.3f} bits/byte, " if self.bits_per_byte is not None else ""
        extra = f"{quality}{tokens_s:,.0f} tokens/s, {share:.0%} of peak"
        self.run.listen(replace(event, method=self.run.name, extra=extra, metrics=None))

    def clock(self) -> float | None:
        """Seconds of training at the last step, those of earlier commands included; None before this command's first
        step."""
        return None if self.before is None else self.seconds

    def cost(self, before: float) -> RunCost:
        """The cost of the run; `before` is the seconds until its first step."""
        tokens = self._tokens(self.run.step, 0)
        flops = tokens * self.plan.flops_per_token
        seconds = max(self.seconds, 1e-9)
        return RunCost(
            seconds=before + self.seconds,
            flops=flops,
            tokens=tokens,
            tokens_s=tokens / seconds,
            peak_share=flops / seconds / self.peak_flops,
            peak_rss_mb=hardware.peak_rss() / hardware.MB,
        )

    def close(self) -> None:
        """Close metrics.jsonl and samples.jsonl."""
        self.metrics.close()
        self.samples.close()

    def _tokens(self, after: int, before: int) -> int:
        batch = self.plan.train["batch_size"]
        rows = planning.rows_read(self.rows, batch, after) - planning.rows_read(self.rows, batch, before)
        return rows * self.plan.model["context"]


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """A loss in nats per token as bits per UTF-8 byte."""
    return loss / math.log(2) / bytes_per_token
