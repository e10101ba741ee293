"""A pretraining run from text to a Hugging Face folder: read, tokenise, measure, plan, train, write, reopen.

Every setting is frozen in plan.json before the first step, so a run that was killed at any point and resumed gives the
same model bit for bit.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from riyaz import hardware
from riyaz.config import PretrainConfig
from riyaz.data.blocks import Corpus, Windows, evenly_spaced, prepare, tokenizer_sha256
from riyaz.data.corpus import Document, documents
from riyaz.errors import RiyazError
from riyaz.events import Listen, about, quiet
from riyaz.joining import announce_start, joined
from riyaz.json_files import from_json, to_document
from riyaz.pace import Pace
from riyaz.pretraining import plan as planning
from riyaz.pretraining.folder import PLAN, RunFolder, damaged
from riyaz.pretraining.following import follow, started_with
from riyaz.pretraining.plan import JUDGED, KINDS, TEXT, TRAINING, Frozen
from riyaz.pretraining.recording import recorder_of
from riyaz.pretraining.running import Running
from riyaz.pretraining.samples import check as check_prompt
from riyaz.pretraining.samples import draw_samples
from riyaz.pretraining.speed import Machine
from riyaz.pretraining.tokenizer_training import VocabularyTooLarge, train_tokenizer
from riyaz.pretraining.watch import Watch, bits_per_byte
from riyaz.ranks import Ranks, on_this_machine
from riyaz.results import ELSEWHERE, RUN, Derived, PretrainRun, RunModel, RunResult, RunText, RunTokenizer
from riyaz.results.documents import read_document
from riyaz.sources.tokenizer_check import open_tokenizer
from riyaz.text.tokenizer import Tokenizer

NAME = "pretrain"  # label of the progress bar
CACHE = "TORCHINDUCTOR_CACHE_DIR"
PACKAGES = ("riyaz", "torch", "numpy", "tokenizers", "safetensors")
SAID = 0.1  # share of the steps; a length that is nearer to the one last said is not said
OPENING = 30  # most characters of held-out text that one sample continues


def pretrain(
    paths: Sequence[Path],
    options: PretrainConfig,
    out: Path,
    *,
    resume: bool = False,
    command: str = "",
    listen: Listen = quiet,
) -> PretrainRun:
    """Train a new model on the texts under `paths`, write it to `out` and return the content of run.json.

    `resume` continues the run in `out`; without paths it uses the texts that the run began with. Raises RiyazError, and
    KeyboardInterrupt with a line that says how to resume.
    """
    with joined() as ranks:
        if ranks.rank:
            return follow(ranks, paths, options, out)
        return _pretrain(paths, options, out, resume, command, listen, ranks)


def _pretrain(
    paths: Sequence[Path], options: PretrainConfig, out: Path, resume: bool, command: str, listen: Listen, ranks: Ranks
) -> PretrainRun:
    """The run of this process, which is alone or the first of several."""
    folder = RunFolder(out)
    options = planning.absolute(options)
    alike = started_with(paths, options) if ranks.count > 1 else {}
    with folder.locked(resume):
        earlier, frozen = read_run(folder)
        if not earlier:
            planning.check(options)
        begun = [Path(path) for path in earlier.paths] if earlier else []
        paths = [Path(path).absolute() for path in paths] or begun
        if not paths:
            raise RiyazError("there is no run to resume, and no TEXT to begin one with", str(out), "name a text")
        run = Running[PretrainRun](folder, NAME, listen)
        job = _Pretraining(run, paths, options, ranks)
        if earlier:
            job.resume(earlier, frozen)
            if earlier.status == "done":
                folder.clean()
                return earlier
        document = PretrainRun(
            status="running",
            command=earlier.command if earlier else command,
            resumed=[*earlier.resumed, command] if earlier else [],
            paths=[str(path) for path in begun or paths],
            asked=job.options.explicit(),
            text=RunText(bytes=job.bytes, sha256=job.sha256),
            resumed_with=earlier.resumed_with if earlier else None,
        )
        with _scratch(folder.work / "inductor"), run.recorded(document, command):
            folder.work.mkdir(exist_ok=True)
            announce_start(ranks, folder.work, alike)
            return job.go(frozen)


@contextlib.contextmanager
def _scratch(path: Path) -> Iterator[None]:
    """Within the block torch makes its compiler's folder, which it never fills here, at `path`, not in the temporary
    folder, where it would stay."""
    if CACHE in os.environ:
        yield
        return
    os.environ[CACHE] = str(path.absolute())
    try:
        yield
    finally:
        os.environ.pop(CACHE, None)


class _Pretraining:
    """What one run does: its options and its texts."""

    def __init__(self, run: Running[PretrainRun], paths: Sequence[Path], options: PretrainConfig, ranks: Ranks) -> None:
        self.run, self.folder, self.paths, self.options, self.ranks = run, run.folder, paths, options, ranks
        self.frozen: Frozen
        self.said: int | None = None  # the length of the run that was said last
        self.bytes, self.sha256 = text_hash(self._documents())

    def resume(self, earlier: PretrainRun, frozen: Frozen | None) -> None:
        """Take over the options with which the run began; `frozen` is None when it has no plan yet. Raises RiyazError
        naming how text, tokenizer or options differ from the run's."""
        then, effective = PretrainConfig(**earlier.asked), frozen.plan.effective if frozen else {}
        differences = planning.differences(then, self.options, effective)
        text = earlier.text
        if self.sha256 != text.sha256:
            how = f"{self.bytes:,} bytes instead of {text.bytes:,}"
            how = "other contents or another order" if self.bytes == text.bytes else how
            differences.insert(0, f"another text ({how})")
        wanted = self.options.tokenizer
        if wanted is not None and not _same(wanted, then.tokenizer, frozen):
            was = then.tokenizer or (frozen.tokenizer.kind if frozen else None)
            how = "has changed" if wanted == was else f"instead of {was or 'none'}"
            differences.append(f"--tokenizer {wanted} {how}")
        if differences:
            what = f"the run in this folder is another: {', '.join(differences)}"
            raise RiyazError(what, str(self.folder.path), "leave that out to resume it, or choose another --out")
        self.options = then

    def _documents(self) -> Iterator[Document]:
        """The texts, without the run's own folder where it is among the paths."""
        return documents(self.paths, exclude=self.folder.path)

    def go(self, frozen: Frozen | None) -> PretrainRun:
        """The whole run, or the rest of it where plan.json exists already."""
        hardware.expect_memory("training", 0, "close other programs or raise the limit")
        self.run.phase("read")
        if frozen is None:
            tokenizer, kind = self._tokenizer()
            corpus, context = self._corpus(tokenizer, kind)
            frozen = self._decide(tokenizer, kind, corpus, context)
        else:
            self._note_versions(frozen.versions)
            tokenizer = Tokenizer.from_folder(self.folder.work / "tokenizer")
            corpus = self._read(tokenizer, frozen.plan.model["context"])
            if corpus.facts["tokens_sha256"] != frozen.text["tokens_sha256"]:
                raise RiyazError(
                    "the tokens of the text have changed since the run began", str(self.folder.work), "begin anew"
                )
            self._refuse_full(frozen.plan.estimate["disk_mb"])
        plan = frozen.plan
        for value in plan.derived:
            self.run.note(f"{value.name}: {value.value} ({value.why})")
        self.run.estimate(**plan.estimate)
        return self._train(frozen, corpus, tokenizer)

    def _tokenizer(self) -> tuple[Tokenizer, str]:
        """The tokenizer of the run, copied or trained into work/, and its kind."""
        kind, vocab, why = planning.kind_of_tokenizer(self.options, self.bytes)
        folder = self.folder.work / "tokenizer"
        if why == "given" and kind not in KINDS:
            ready = open_tokenizer(Path(kind))
            ready.save(folder)
            tokenizer = Tokenizer.from_folder(folder)
            self.run.note(f"tokenizer: {tokenizer.vocab_size:,} tokens of {kind} (given)")
            return tokenizer, "folder"
        self.run.phase("tokenizer")
        while True:
            try:
                tokenizer = train_tokenizer((document.text for document in self._documents()), kind, vocab, folder)
                break
            except VocabularyTooLarge:
                fewer = planning.smaller(vocab)  # a repetitive text has fewer different pieces
                kind, vocab, why = ("bpe", fewer, why) if fewer else ("bytes", 0, "the text is repetitive")
        self.run.note(f"tokenizer: {kind}, {tokenizer.vocab_size:,} tokens ({why})")
        return tokenizer, kind

    def _corpus(self, tokenizer: Tokenizer, kind: str) -> tuple[Corpus, int]:
        """The text as windows of the context, and the context."""
        ratio = 1.0 if kind in KINDS else 3.5  # bytes per token, a guess before the text is tokenised
        context, why = planning.context_for(self.options, self.bytes / ratio)
        self.run.note(f"context: {context} tokens ({why})")
        corpus = self._read(tokenizer, context)
        near = corpus.facts["near_duplicates"]
        if near:
            self.run.note(
                f"{near} of {corpus.facts['valid_blocks']} held-out blocks are nearly in the training text too"
            )
        return corpus, context

    def _read(self, tokenizer: Tokenizer, context: int) -> Corpus:
        self.run.phase("tokenise")
        return prepare(self.paths, tokenizer, self.folder.work / "text", context,
                       exclude=self.folder.path, listen=about(NAME, self.run.listen))  # fmt: skip

    def _decide(self, tokenizer: Tokenizer, kind: str, corpus: Corpus, context: int) -> Frozen:
        """Measure this machine, make the plan and write plan.json."""
        import torch

        check_prompt(tokenizer, self.options.prompt, context)
        threads = self.options.threads or hardware.threads()
        torch.set_num_threads(threads)
        self.run.phase("measure", "speed of this machine")
        facts = corpus.facts
        text = planning.Text(facts["train_tokens"], len(corpus.train), len(corpus.valid))
        machine = Machine(corpus.train, context, self.options.seed or 0, bool(self.options.ternary), self.ranks)
        plan = planning.make_plan(
            self.options, text, tokenizer.vocab_size, context, machine,
            spent=self.run.spent, memory=hardware.memory().available / hardware.MB / on_this_machine(),
            threads=threads,
        )  # fmt: skip
        self._refuse_full(plan.estimate["disk_mb"])
        frozen = Frozen(
            plan=plan,
            versions=versions(),
            threads=threads,
            peak_flops=machine.peak_flops(plan.train["compute"]),
            text={name: facts[name] for name in (*TEXT, "tokens_sha256")},
            tokenizer=RunTokenizer(kind, tokenizer.vocab_size, tokenizer_sha256(tokenizer)),
            seconds=self.run.spent(),
        )
        self.folder.write(PLAN, frozen)
        return frozen

    def _refuse_full(self, need: float) -> None:
        """Raises RiyazError when `need` MB, less the run's existing checkpoints, are not free on the disk."""
        held = sum(path.stat().st_size for path in (self.folder.work / "train").rglob("*") if path.is_file())
        need, free = need - held / hardware.MB, hardware.disk_free(self.folder.path) / hardware.MB
        if need > free:
            what = f"the run needs about {need:.0f} MB of disk and {free:.0f} MB are free"
            raise RiyazError(what, str(self.folder.path), "free disk space or choose another --out")

    def _train(self, frozen: Frozen, corpus: Corpus, tokenizer: Tokenizer) -> PretrainRun:
        """Train, write the model, reopen and measure it, and write the results to run.json."""
        import torch

        from riyaz.models.fresh import fresh
        from riyaz.train import train

        plan = frozen.plan
        torch.set_num_threads(frozen.threads)  # sums depend in their last bits on the number of threads
        machine = hardware.describe(self.folder.path) | {"peak_flops": frozen.peak_flops}
        self.run.document = replace(described(self.run.document, frozen), hardware=machine)
        self.run.write()
        model = fresh(plan.config, plan.train["seed"], plan.model.get("ternary", False))
        valid = evenly_spaced(corpus.valid, plan.valid_windows, tokenizer)
        watch = Watch(self.run, plan, frozen.peak_flops, len(corpus.train), valid.bytes_per_token)
        opening = opening_of(tokenizer, corpus.valid)

        recorder = recorder_of(self.folder.path, model, tokenizer, valid, plan, self.options.prompt)

        def sampled(step: int) -> None:
            ratio = corpus.valid.bytes_per_token
            watch.samples.add(
                draw_samples(model, tokenizer, opening, ratio, plan.train["seed"], step, self.options.prompt)
            )

        def seen(step: int) -> None:
            sampled(step)
            recorder.validated(step)

        self.frozen = frozen
        pace = Pace(
            budget=plan.effective["budget"], before=frozen.seconds, end=plan.end_seconds, clock=watch.clock,
            step_seconds=plan.train["batch_size"] * plan.model["context"] / plan.tokens_s / TRAINING,
            record=self._changed,
        )  # fmt: skip
        model.eval()
        if not watch.samples.entries():
            sampled(0)
        recorder.begin()
        try:
            if self.ranks.count > 1:
                self.run.note(f"{self.ranks.count} processes train, each with --threads {frozen.threads}")
                self.ranks.first({"do": "train", "plan": to_document(frozen)})
            state = train(
                model, corpus.train, valid, plan.settings(), self.folder.work / "train", watch.listen,
                after_validation=seen, adjust=pace.adjusted, ranks=self.ranks,
                local_steps=plan.local_steps, stepping=recorder.stepping,
            )  # fmt: skip
        finally:
            watch.close()
            recorder.lines.close()
        # validations use fewer where time is short; this number is the same for all sizes and budgets
        judged = evenly_spaced(corpus.valid, JUDGED, tokenizer)
        # a ternary model is rounded as in the forward of training, so that its codes are the trained ones
        dtype = plan.train["compute"] if plan.model.get("ternary") else "float32"
        loss, written = self.run.write_model(model, tokenizer, judged, plan.train["micro_tokens"], dtype)
        result = RunResult(
            valid_loss=loss,
            bits_per_byte=bits_per_byte(loss, judged.bytes_per_token),
            windows=len(judged),
            best_step=state.best_step,
            logit_difference=written.difference,
        )
        self.run.document = described(self.run.document, self.frozen)
        self.run.write(status="done", cost=watch.cost(frozen.seconds), result=result)
        self.folder.clean()
        return self.run.document

    def _changed(self, plan: Any) -> None:
        """Write plan.json with the changes of length of a `train.TrainPlan`; say one far from the last one said."""
        train = self.frozen.plan.train | {"changes": plan.changes}
        self.frozen = replace(self.frozen, plan=replace(self.frozen.plan, train=train))
        self.folder.write(PLAN, self.frozen)
        if abs(plan.length - (self.said or plan.steps)) > SAID * plan.steps:
            self.said = plan.length
            self.run.note(f"at the present speed the budget holds {plan.length:,} of {plan.steps:,} steps")

    def _note_versions(self, then: dict[str, str]) -> None:
        """Report, and record in run.json, package versions that differ from those the run began with."""
        others = {name: now for name, now in versions().items() if now != then.get(name)}
        if others:
            changes = ", ".join(f"{name} {now} instead of {then.get(name, 'none')}" for name, now in others.items())
            self.run.note(f"resumed with {changes}: the result may differ from that of an uninterrupted run")
            self.run.document = replace(self.run.document, resumed_with=(self.run.document.resumed_with or {}) | others)


def text_hash(texts: Iterable[Document]) -> tuple[int, str]:
    """(bytes, SHA-256) of the texts, as in `data.blocks`. Raises RiyazError for a file that is not text."""
    count, digest = 0, hashlib.sha256()
    for document in texts:
        content = document.text.encode()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
        count += len(content)
    return count, digest.hexdigest()


def _same(now: str, then: str | None, frozen: Frozen | None) -> bool:
    """Whether --tokenizer names the run's tokenizer; a folder's is compared by its hash, as it may have changed."""
    if frozen is None:
        return now == then
    if now in KINDS:
        return now in (then, frozen.tokenizer.kind)
    return bool(tokenizer_sha256(Tokenizer.from_folder(now)) == frozen.tokenizer.sha256)


def read_run(folder: RunFolder) -> tuple[PretrainRun | None, Frozen | None]:
    """The content of run.json and plan.json, None for a file not written yet. Raises RiyazError for a damaged one."""
    run, plan = folder.path / RUN, folder.path / PLAN
    if not run.exists():
        return None, None
    earlier = PretrainRun.read(run)
    from_json(PretrainConfig, earlier.asked, f"{run}: asked", ELSEWHERE)
    if not plan.exists():
        return earlier, None
    frozen = read_document(Frozen, plan, ELSEWHERE)
    try:
        _ = frozen.plan.config, frozen.plan.settings(), range(1, 2**16).index(frozen.threads)
    except (ArithmeticError, ValueError, TypeError, RiyazError) as error:
        raise damaged(str(plan)) from error
    return earlier, frozen


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect the results."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def opening_of(tokenizer: Tokenizer, windows: Windows) -> str:
    """The first words of the first held-out window, at most OPENING characters."""
    row = windows[0]
    text = tokenizer.decode((row.prompt + row.answer)[: 4 * OPENING]).replace("\ufffd", "")
    words = " ".join(text.split())[:OPENING]
    return words.rpartition(" ")[0] or words


def described(run: PretrainRun, frozen: Frozen) -> PretrainRun:
    """`run` with everything that plan.json adds to run.json before the first step."""
    plan = frozen.plan
    model = {name: plan.model[name] for name in ("family", "layers", "heads", "width", "context", "parameters")}
    return replace(
        run,
        seed=plan.train["seed"],
        versions=frozen.versions,
        text=RunText(**{name: frozen.text[name] for name in TEXT}),
        tokenizer=frozen.tokenizer,
        model=RunModel(**model),
        derived=[Derived(value.name, value.value, value.why) for value in plan.derived],
        plan={**plan.train, "valid_windows": plan.valid_windows},
        length=plan.settings().length if plan.train.get("changes") else None,
        estimate=plan.estimate,
    )
