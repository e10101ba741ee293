"""One side of benchmarks/inference.py, or ternary.py, in a process of its own: Riyaz or a peer with one model.

    python benchmarks/inference_sides.py SIDE MODEL SETTINGS

SETTINGS is a JSON object. The first line written says {"ready": VERSION} or {"error": REASON}; then each line read is
{"do": NAME, ...}, and each line written is the answer of the method of that name. Imports nothing of riyaz unless SIDE
is Riyaz: a peer runs in whatever Python has it.
"""

import importlib
import importlib.metadata
import json
import os
import sys
import time
from typing import Any

import numpy as np

LORA, RANK, ALPHA = "lora", 16, 32
LITESPARK_TOKENS = 32  # at once; its products take 64 at most, and 32 are the fastest of 8, 16, 32 and 64


class Riyaz:
    """The public engine, with a LoRA of rank 16 on every linear but the head for who asks."""

    def __init__(self, model: str, precision: str) -> None:
        from riyaz.engine.opening import open_engine
        from riyaz.sources import open_source

        self.version = importlib.metadata.version("riyaz")
        self.source = open_source(model)
        self.engine = open_engine(self.source, precision)
        self.engine.drafts.mode = "off"  # what is measured is the pass of a token
        self.loaded = False

    def decode(self, prompts: list[list[int]], count: int, lora: bool = False) -> dict[str, float]:
        """`count` tokens after the first one of each prompt; reading the prompts is not timed."""
        from riyaz.engine import Request

        if lora and not self.loaded:
            self.engine.load(LORA, random_lora(self.source))
            self.loaded = True
        for i, prompt in enumerate(prompts):
            self.engine.add(Request(i, tuple(prompt), limit=count + 1, adapter=LORA if lora else None))
        first = self.engine.step()
        assert len(first) == len(prompts), "not all prompts are read in one step"
        start, tokens = time.perf_counter(), 0
        while made := self.engine.step():
            tokens += len(made)
        return {"tokens": tokens, "seconds": time.perf_counter() - start}

    def prefill(self, prompt: list[int]) -> dict[str, float]:
        """A prompt and the first token after it."""
        from riyaz.engine import Request

        start = time.perf_counter()
        self.engine.generate([Request(0, tuple(prompt), limit=1)])
        return {"tokens": len(prompt), "seconds": time.perf_counter() - start}

    def lookup(self, rounds: int) -> dict[str, Any]:
        """What prompt lookup gives, as benchmarks/lookup.py measures it."""
        from lookup import lookup

        found = lookup(self.engine, self.source, rounds)
        self.engine.drafts.mode = "off"
        return found

    def held(self) -> dict[str, float | str]:
        return held_by(self.engine)

    def limits(self) -> dict[str, float | None]:
        """What native loops reach now: GB/s read, 10⁹ operations/s in int8 and bf16; null where there is no loop."""
        from riyaz import hardware, native

        if not native.available():
            return {"read_gbs": None, "int8_gops": None, "bf16_gops": None}
        threads = hardware.threads()
        kinds = {f"{kind}_gops": native.matmul_peak(kind, threads) for kind in ("int8", "bf16")}
        return {"read_gbs": native.read_bandwidth_gbs(threads), **kinds}


class ColdRiyaz:
    """Riyaz before anything is opened."""

    def __init__(self, model: str, precision: str) -> None:
        self.version, self.model, self.precision = "", model, precision
        self.bare, self.engine = resident("VmRSS"), None

    def start(
        self, prompt: list[int], long_prompt: list[int], count: int, tokenizer: bool = True
    ) -> dict[str, float | bool]:
        """Seconds from `open` to the first token after a prompt, and to a tokenizer if the file has one; then `count`
        tokens after a long prompt, and the bytes that are resident above numpy's."""
        from riyaz.engine import Request
        from riyaz.engine.opening import open_engine
        from riyaz.sources import open_source

        start = time.perf_counter()
        source = open_source(self.model)
        engine = self.engine = open_engine(source, self.precision)
        next(engine.stream(Request(0, tuple(prompt), limit=1)))
        first = time.perf_counter()
        for _ in engine.stream(Request(0, tuple(long_prompt), limit=count)):
            memory = resident("VmRSS") - self.bare  # while the keys and values are there
        peak, torch = resident("VmHWM") - self.bare, "torch" in sys.modules
        before_tokenizer = time.perf_counter()
        if tokenizer:
            source.tokenizer().encode("Hello")
        taken = time.perf_counter() - before_tokenizer
        return {"seconds": first - start, "tokenizer_s": taken, "rss": memory, "peak": peak, "torch": torch}

    def held(self) -> dict[str, float | str]:
        """As `held_by` the engine that `start` opened."""
        return held_by(self.engine)


def held_by(engine: Any) -> dict[str, float | str]:
    """Bytes of an engine's packed weights, and the packing of ternary ones, which each engine chooses when it loads."""
    return {"bytes": engine.runner.nbytes, "ternary": engine.runner.ternary}


class LlamaCpp:
    """llama.cpp by its C interface; the likeliest token is found by numpy, which takes less than its own sampler."""

    def __init__(self, model: str, threads: int, flash_attention: bool) -> None:
        import llama_cpp

        self.version = llama_cpp.__version__
        self.api, self.threads, self.flash_attention = llama_cpp, threads, flash_attention
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(model.encode(), parameters)
        if not self.model:
            raise RuntimeError("llama.cpp cannot load the file")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.contexts: dict[tuple[int, int], Any] = {}

    def context(self, sequences: int, places: int) -> Any:
        """An empty context for as many sequences of so many places."""
        api, key = self.api, (sequences, places)
        if key not in self.contexts:
            parameters = api.llama_context_default_params()
            parameters.n_ctx, parameters.n_seq_max = sequences * places, sequences
            parameters.n_batch = parameters.n_ubatch = 512
            parameters.n_threads = parameters.n_threads_batch = self.threads
            parameters.flash_attn_type = int(self.flash_attention)
            self.contexts[key] = api.llama_init_from_model(self.model, parameters)
        api.llama_memory_clear(api.llama_get_memory(self.contexts[key]), True)
        return self.contexts[key]

    def decode(self, prompts: list[list[int]], count: int) -> dict[str, float]:
        """As Riyaz's."""
        places = -(-(len(prompts[0]) + count + 1) // 256) * 256
        context = self.context(len(prompts), places)
        batch = self.api.llama_batch_init(512, 0, 1)
        last = []
        for sequence, prompt in enumerate(prompts):
            rows = [(token, place, sequence) for place, token in enumerate(prompt)]
            last += self.run(context, batch, rows, [len(rows) - 1])
        start = time.perf_counter()
        for step in range(count):
            rows = [(token, len(prompts[s]) + step, s) for s, token in enumerate(last)]
            last = self.run(context, batch, rows, range(len(rows)))
        seconds = time.perf_counter() - start
        self.api.llama_batch_free(batch)
        return {"tokens": count * len(prompts), "seconds": seconds}

    def prefill(self, prompt: list[int]) -> dict[str, float]:
        """As Riyaz's."""
        context = self.context(1, 1024)
        batch = self.api.llama_batch_init(len(prompt), 0, 1)
        start = time.perf_counter()
        self.run(context, batch, [(token, i, 0) for i, token in enumerate(prompt)], [len(prompt) - 1])
        seconds = time.perf_counter() - start
        self.api.llama_batch_free(batch)
        return {"tokens": len(prompt), "seconds": seconds}

    def run(self, context: Any, batch: Any, rows: list[tuple[int, int, int]], wanted: Any) -> list[int]:
        """One pass over (token, position, sequence); the likeliest token after each of the wanted rows."""
        batch.n_tokens = len(rows)
        for i, (token, position, sequence) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, i in wanted
        if self.api.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
        pointers = (self.api.llama_get_logits_ith(context, i) for i in wanted)
        return [int(np.ctypeslib.as_array(logits, (self.vocabulary,)).argmax()) for logits in pointers]


class OpenVino:
    """openvino-genai; times are its own, without the making of texts."""

    def __init__(self, model: str, threads: int, **settings: str) -> None:
        import openvino
        import openvino_genai

        self.version = openvino_genai.__version__
        self.api, self.tensor = openvino_genai, openvino.Tensor
        common = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        self.pipeline = openvino_genai.LLMPipeline(model, "CPU", **common, **settings)

    def generate(self, prompts: list[list[int]], count: int) -> list[float]:
        """`count` tokens after prompts of one length; when each was there, in ms after some moment."""
        config = self.api.GenerationConfig(max_new_tokens=count, ignore_eos=True, do_sample=False)
        ids = np.array(prompts, np.int64)
        inputs = self.api.TokenizedInputs(self.tensor(ids), self.tensor(np.ones_like(ids)))
        made = self.pipeline.generate(inputs, config)
        assert all(len(tokens) == count for tokens in made.tokens), "an answer ended early"
        return made.perf_metrics.raw_metrics.m_new_token_times

    def decode(self, prompts: list[list[int]], count: int) -> dict[str, float]:
        """As Riyaz's."""
        times = self.generate(prompts, count + 1)
        return {"tokens": count * len(prompts), "seconds": (times[-1] - times[0]) / 1e3}

    def prefill(self, prompt: list[int]) -> dict[str, float]:
        """As Riyaz's."""
        start = time.perf_counter()
        self.generate([prompt], 1)
        return {"tokens": len(prompt), "seconds": time.perf_counter() - start}


class Litespark:
    """litespark-inference without torch, on a BitNet of random weights with its default, an embedding in int4."""

    def __init__(self, model: str, **sizes: int) -> None:
        from litespark_inference.torchless import model as parts
        from litespark_inference.torchless import runtime

        self.version = importlib.metadata.version("litespark-inference")
        self.runtime, random = runtime, np.random.default_rng(0)
        hidden, inner, vocabulary = sizes["hidden_size"], sizes["intermediate_size"], sizes["vocab_size"]
        keys = sizes["num_kv_heads"] * hidden // sizes["num_heads"]
        digits = sum(np.arange(81) // 3**i % 3 << 2 * i for i in range(4)).astype(np.uint8)

        def linear(rows: int, cols: int) -> Any:
            codes = digits[random.integers(0, 81, (rows, cols // 4), np.uint8)]
            return parts.PackedProjection(codes, np.zeros(rows, np.int32), 0.02, cols, rows)

        layers = [
            parts.PackedLayer(
                linear(hidden, hidden), linear(keys, hidden), linear(keys, hidden), linear(hidden, hidden),
                linear(inner, hidden), linear(inner, hidden), linear(hidden, inner),
                *(np.ones(width, np.float32) for width in (hidden, hidden, hidden, inner)),
            )
            for _ in range(sizes["num_layers"])
        ]  # fmt: skip
        config = parts.BitNetConfig(**sizes, max_position_embeddings=4096, rms_norm_eps=1e-5, rope_theta=5e5)
        embedding = random.integers(0, 256, (vocabulary, hidden // 2), np.uint8)
        self.model = parts.PackedBitNetModel(
            config, None, np.ones(hidden, np.float32), layers=layers, embed_int4=embedding,
            embed_scale=np.full(vocabulary, 0.01, np.float32),
        )  # fmt: skip

    def decode(self, prompts: list[list[int]], count: int) -> dict[str, float]:
        """As Riyaz's."""
        (prompt,) = prompts
        state = self.runtime.init_state(self.model, 1024)
        token = self._read(state, prompt)
        start = time.perf_counter()
        for _ in range(count):
            token = int(self.runtime.forward_one(self.model, state, token).argmax())
        return {"tokens": count, "seconds": time.perf_counter() - start}

    def prefill(self, prompt: list[int]) -> dict[str, float]:
        """As Riyaz's."""
        state = self.runtime.init_state(self.model, 1024)
        start = time.perf_counter()
        self._read(state, prompt)
        return {"tokens": len(prompt), "seconds": time.perf_counter() - start}

    def _read(self, state: Any, prompt: list[int]) -> int:
        """The likeliest token after a prompt, read in pieces: beyond 64 tokens its kernel returns without a product."""
        for begin in range(0, len(prompt), LITESPARK_TOKENS):
            logits = self.runtime.forward_prefill(self.model, state, prompt[begin : begin + LITESPARK_TOKENS])
        return int(logits.argmax())


SIDES = {
    "riyaz": Riyaz, "riyaz cold": ColdRiyaz, "llama.cpp": LlamaCpp, "openvino": OpenVino, "litespark": Litespark
}  # fmt: skip


def random_lora(source: Any) -> Any:
    """A LoRA of random numbers on every linear but the head."""
    from riyaz.adapters import Adapter, Pair
    from riyaz.adapters.base_shapes import shapes_of
    from riyaz.families import describe

    rng, pairs = np.random.default_rng(0), {}
    for name, (rows, columns) in shapes_of(describe(source)).linears.items():
        if name != "lm_head":
            a = rng.normal(0, columns**-0.5, (RANK, columns)).astype(np.float32)
            pairs[name] = Pair(a, rng.normal(0, 1e-3, (rows, RANK)).astype(np.float32), ALPHA / RANK)
    return Adapter(pairs)


def resident(field: str) -> int:
    """Bytes of this process's memory by a field of /proc: VmRSS now, VmHWM at its peak."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def main() -> None:
    """Open a side, then answer one line after another until the input ends."""
    name, model, settings = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the peers' libraries print is no answer
    try:
        side = SIDES[name](model, **json.loads(settings))
    except Exception as error:  # whatever keeps a peer from running here is a reason to show, not ours to sort
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)
        return
    print(json.dumps({"ready": side.version}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(side, request.pop("do"))(**request)), file=answers)


if __name__ == "__main__":
    main()
