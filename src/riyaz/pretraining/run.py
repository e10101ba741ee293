"""A pretraining run from text to a Hugging Face folder: read, tokenise, measure, plan, train, write, open again.

Everything that is decided is frozen in plan.json before the first step, so a run that was killed anywhere and resumed
is the same run, bit for bit.
"""

import contextlib
import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from riyaz import hardware
from riyaz.config import PretrainConfig
from riyaz.data.blocks import Corpus, Windows, evenly_spaced, prepare, tokenizer_sha256
from riyaz.data.corpus import Document, documents
from riyaz.errors import RiyazError
from riyaz.events import Estimate, Listen, Note, Phase, Planned, about, quiet
from riyaz.files import from_json, read_json, to_document
from riyaz.pretraining import plan as planning
from riyaz.pretraining.folder import DAMAGED, PLAN, RUN, RunFolder, damaged
from riyaz.pretraining.plan import KINDS, TEXT, Frozen, PretrainingPlan
from riyaz.pretraining.samples import look
from riyaz.pretraining.speed import Machine
from riyaz.pretraining.watch import NAME, Watch, bits_per_byte
from riyaz.results import Derived, PretrainRun, RunModel, RunResult, RunText, RunTokenizer
from riyaz.tokenizer import Tokenizer
from riyaz.tokenizer_training import VocabularyTooLarge, train_tokenizer

PACKAGES = ("riyaz", "torch", "numpy", "tokenizers", "safetensors")
JUDGED = 64  # held-out windows by which the finished model is judged
OPENING = 30  # characters of the held-out text that samples go on from


def pretrain(
    paths: Sequence[Path],
    asked: PretrainConfig,
    out: Path,
    *,
    resume: bool = False,
    command: str = "",
    listen: Listen = quiet,
) -> PretrainRun:
    """Train a new model on the texts under `paths`, leave it in `out` and return what run.json holds.

    With `resume` the run in `out` goes on; without paths on the texts it began with. Raises RiyazError, and
    KeyboardInterrupt with a line that says how to go on.
    """
    folder = RunFolder(out)
    asked = planning.absolute(asked)
    with folder.locked(resume):
        known, frozen = read_run(folder)
        if not known:
            planning.check(asked)
        begun = [Path(path) for path in known.paths] if known else []
        paths = [Path(path).absolute() for path in paths] or begun
        if not paths:
            raise RiyazError("there is no run to resume, and no TEXT to begin one with", str(out), "name a text")
        run = _Run(folder, paths, asked, listen)
        if known:
            run.go_on(known, frozen)
            if known.status == "done":
                folder.clean()
                return known
        run.document = PretrainRun(
            status="running",
            command=known.command if known else command,
            resumed=[*known.resumed, command] if known else [],
            paths=[str(path) for path in begun or paths],
            asked=run.asked.given(),
            text=RunText(bytes=run.bytes, sha256=run.sha256),
            resumed_with=known.resumed_with if known else None,
        )
        try:
            return run.go(frozen)
        except KeyboardInterrupt:
            run.stopped()
            where = f" at step {run.step:,}" if run.step else ""
            raise KeyboardInterrupt(f"stopped{where}; the same command with --resume goes on") from None
        except (RiyazError, OSError, MemoryError):
            run.stopped()
            raise


class _Run:
    """One run: what it knows, and the file that says how far it came."""

    def __init__(self, folder: RunFolder, paths: Sequence[Path], asked: PretrainConfig, listen: Listen) -> None:
        self.folder, self.paths, self.asked, self.listen = folder, paths, asked, listen
        self.began = time.monotonic()
        self.document: PretrainRun
        self.step = 0
        self.bytes, self.sha256 = text_hash(self._documents())

    def go_on(self, known: PretrainRun, frozen: Frozen | None) -> None:
        """Take what was asked when the run began, plan or no plan yet. Raises RiyazError naming how text, tokenizer or
        configuration differ from the run's."""
        then, effective = PretrainConfig(**known.asked), frozen.plan.effective if frozen else {}
        found = planning.differences(then, self.asked, effective)
        text = known.text
        if self.sha256 != text.sha256:
            how = f"{self.bytes:,} bytes instead of {text.bytes:,}"
            how = "other contents or another order" if self.bytes == text.bytes else how
            found.insert(0, f"another text ({how})")
        given = self.asked.tokenizer
        if given is not None and not _same(given, then.tokenizer, frozen):
            was = then.tokenizer or (frozen.tokenizer.kind if frozen else None)
            found.append(f"--tokenizer {given} " + ("has changed" if given == was else f"instead of {was or 'none'}"))
        if found:
            what = f"the run in this folder is another: {', '.join(found)}"
            raise RiyazError(what, str(self.folder.path), "leave that out to resume it, or choose another --out")
        self.asked = then

    def _documents(self) -> Iterator[Document]:
        """The texts; the run's own folder may lie among them."""
        return documents(self.paths, exclude=self.folder.path)

    def stopped(self) -> None:
        """Say in run.json that nobody works on it; a full disk keeps what stands there."""
        with contextlib.suppress(RiyazError, OSError):
            self.folder.write(RUN, replace(self.document, status="stopped"))

    def go(self, frozen: Frozen | None) -> PretrainRun:
        """All of it, from where the folder stands."""
        self.folder.write(RUN, self.document)
        self.folder.work.mkdir(exist_ok=True)
        self._phase("read")
        if frozen is None:
            tokenizer, kind = self._tokenizer()
            corpus, context = self._corpus(tokenizer, kind)
            frozen = self._decide(tokenizer, kind, corpus, context)
        else:
            self._note_versions(frozen.versions)
            tokenizer = Tokenizer.from_folder(self.folder.work / "tokenizer")
            corpus = self._read(tokenizer, frozen.plan.model["context"])
            if corpus.facts["tokens_sha256"] != frozen.text["tokens_sha256"]:
                raise RiyazError("the tokens are not those it was begun with", str(self.folder.work), "begin anew")
            self._refuse_full(frozen.plan.estimate["disk_mb"])
        plan = frozen.plan
        for value in plan.derived:
            self._note(f"{value.name}: {value.value} ({value.why})")
        self.listen(Estimate(**plan.estimate, arms=(Planned(NAME, plan.estimate["seconds"]),)))
        return self._train(frozen, corpus, tokenizer)

    def _tokenizer(self) -> tuple[Tokenizer, str]:
        """The tokenizer of the run, copied or made in work/, and its kind."""
        kind, vocab, why = planning.kind_of_tokenizer(self.asked, self.bytes)
        folder = self.folder.work / "tokenizer"
        if why == "given" and kind not in KINDS:
            given = Tokenizer.from_folder(kind)
            given.save(folder)
            tokenizer = Tokenizer.from_folder(folder)
            self._note(f"tokenizer: {tokenizer.vocab_size:,} tokens of {kind} (given)")
            return tokenizer, "folder"
        self._phase("tokenizer")
        while True:
            try:
                tokenizer = train_tokenizer((document.text for document in self._documents()), kind, vocab, folder)
                break
            except VocabularyTooLarge:
                fewer = planning.smaller(vocab)  # a text that says little in many bytes
                kind, vocab, why = ("bpe", fewer, why) if fewer else ("bytes", 0, "the text repeats itself")
        self._note(f"tokenizer: {kind}, {tokenizer.vocab_size:,} tokens ({why})")
        return tokenizer, kind

    def _corpus(self, tokenizer: Tokenizer, kind: str) -> tuple[Corpus, int]:
        """The text as windows of a context that suits its length."""
        ratio = 1.0 if kind in KINDS else 3.5  # bytes of a token, about, before they are counted
        context, why = planning.context_for(self.asked, self.bytes / ratio)
        self._note(f"context: {context} tokens ({why})")
        corpus = self._read(tokenizer, context)
        near = corpus.facts["near_duplicates"]
        if near:
            self._note(
                f"{near} of {corpus.facts['valid_blocks']} held-out blocks stand in the training text too, nearly"
            )
        return corpus, context

    def _read(self, tokenizer: Tokenizer, context: int) -> Corpus:
        self._phase("tokenise")
        return prepare(self.paths, tokenizer, self.folder.work / "text", context,
                       exclude=self.folder.path, listen=about(NAME, self.listen))  # fmt: skip

    def _decide(self, tokenizer: Tokenizer, kind: str, corpus: Corpus, context: int) -> Frozen:
        """Measure, plan, and freeze the plan."""
        import torch

        threads = hardware.cores()
        torch.set_num_threads(threads)
        self._phase("measure", "speed of this machine")
        facts = corpus.facts
        text = planning.Text(facts["train_tokens"], len(corpus.train), len(corpus.valid))
        machine = Machine(corpus.train, context, self.asked.seed or 0)
        plan = planning.make(
            self.asked, text, tokenizer.vocab_size, context, machine,
            spent=lambda: time.monotonic() - self.began, memory=hardware.memory().available / hardware.MB,
        )  # fmt: skip
        self._refuse_full(plan.estimate["disk_mb"])
        frozen = Frozen(
            plan=plan,
            versions=versions(),
            threads=threads,
            peak_flops=machine.peak_flops(plan.train["compute"]),
            text={name: facts[name] for name in (*TEXT, "tokens_sha256")},
            tokenizer=RunTokenizer(kind, tokenizer.vocab_size, tokenizer_sha256(tokenizer)),
            seconds=time.monotonic() - self.began,
        )
        self.folder.write(PLAN, frozen)
        return frozen

    def _refuse_full(self, need: float) -> None:
        """Raises RiyazError where so many megabytes, without those of the checkpoints that lie here, are not free."""
        held = sum(path.stat().st_size for path in (self.folder.work / "train").rglob("*") if path.is_file())
        need, free = need - held / hardware.MB, hardware.disk_free(self.folder.path) / hardware.MB
        if need > free:
            what = f"the run needs about {need:.0f} MB of disk and {free:.0f} MB are free"
            raise RiyazError(what, str(self.folder.path), "free disk space or choose another --out")

    def _train(self, frozen: Frozen, corpus: Corpus, tokenizer: Tokenizer) -> PretrainRun:
        """Train, write the model, open it again and say what it cost."""
        import torch

        from riyaz.export import hf
        from riyaz.export.check import logits
        from riyaz.models.fresh import fresh
        from riyaz.train import answer_loss, train

        plan = frozen.plan
        torch.set_num_threads(frozen.threads)  # sums that are shared out otherwise come out otherwise
        machine = hardware.describe(self.folder.path) | {"peak_flops": frozen.peak_flops}
        self.document = replace(described(self.document, frozen), hardware=machine)
        self.folder.write(RUN, self.document)
        model = fresh(plan.config, plan.train["seed"])
        valid = evenly_spaced(corpus.valid, plan.valid_windows, tokenizer)
        watch = Watch(self, plan, frozen.peak_flops, len(corpus.train), valid.bytes_per_token)
        opening = opening_of(tokenizer, corpus.valid)

        def seen(step: int) -> None:
            ratio = corpus.valid.bytes_per_token
            watch.samples.add(look(model, tokenizer, opening, ratio, plan.train["seed"], step))

        if not watch.samples.entries():
            model.eval()
            seen(0)
        try:
            work = self.folder.work / "train"
            state = train(model, corpus.train, valid, settings(plan), work, watch.listen, after_validation=seen)
        finally:
            watch.close()
        self._phase("write")
        work = self.folder.work / "model"
        model.eval()
        # the looks are on as many windows as there was time for; this is the same for all sizes and budgets
        judged = evenly_spaced(corpus.valid, JUDGED, tokenizer)
        loss = answer_loss(model, judged, plan.train["micro_tokens"])
        written = hf.write_model(model, tokenizer, logits(model, tokenizer), work, "float32")
        self.folder.keep(work)
        result = RunResult(
            valid_loss=loss,
            bits_per_byte=bits_per_byte(loss, judged.bytes_per_token),
            windows=len(judged),
            best_step=state.best_step,
            logit_difference=written.difference,
        )
        self.document = replace(self.document, status="done", cost=watch.cost(frozen.seconds), result=result)
        self.folder.write(RUN, self.document)
        self.folder.clean()
        return self.document

    def _note_versions(self, then: dict[str, str]) -> None:
        """Say and keep which versions are not those that the run began with."""
        others = {name: now for name, now in versions().items() if now != then.get(name)}
        if others:
            said = ", ".join(f"{name} {now} instead of {then.get(name, 'none')}" for name, now in others.items())
            self._note(f"resumed with {said}: what comes is not the same bit for bit as without the stop")
            with_others = (self.document.resumed_with or {}) | others
            self.document = replace(self.document, resumed_with=with_others)

    def _phase(self, phase: str, detail: str = "") -> None:
        self.listen(Phase(phase, detail, NAME))

    def _note(self, text: str) -> None:
        self.listen(Note(text))


def text_hash(texts: Iterable[Document]) -> tuple[int, str]:
    """(bytes, hash) of the texts, as `data.blocks` counts them. Raises RiyazError for what is no text."""
    count, digest = 0, hashlib.sha256()
    for document in texts:
        content = document.text.encode()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
        count += len(content)
    return count, digest.hexdigest()


def _same(given: str, then: str | None, frozen: Frozen | None) -> bool:
    """Whether a tokenizer is that of the run; a folder may hold another one by now."""
    if frozen is None:
        return given == then
    if given in KINDS:
        return given in (then, frozen.tokenizer.kind)
    return bool(tokenizer_sha256(Tokenizer.from_folder(given)) == frozen.tokenizer.sha256)


def read_run(folder: RunFolder) -> tuple[PretrainRun | None, Frozen | None]:
    """What run.json and plan.json hold, None where there is no run yet. Raises RiyazError naming what is wrong."""
    run, plan = folder.path / RUN, folder.path / PLAN
    if not run.exists():
        return None, None
    known = PretrainRun.read(run)
    from_json(PretrainConfig, known.asked, f"{run}: asked", DAMAGED)
    if not plan.exists():
        return known, None
    frozen = from_json(Frozen, read_json(plan, DAMAGED), str(plan), DAMAGED)
    try:
        _ = frozen.plan.config, settings(frozen.plan), range(1, 2**16).index(frozen.threads)
    except (ArithmeticError, ValueError, TypeError, RiyazError) as error:
        raise damaged(str(plan)) from error
    return known, frozen


def settings(plan: PretrainingPlan) -> Any:
    """The plan as the training loop takes it. Raises RiyazError."""
    from riyaz.train import TrainPlan

    return from_json(TrainPlan, to_document(plan.train), PLAN, DAMAGED)


def versions() -> dict[str, str]:
    """Of Python and of the packages on which the numbers depend."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def opening_of(tokenizer: Tokenizer, windows: Windows) -> str:
    """Some words with which a held-out window begins."""
    row = windows[0]
    text = tokenizer.decode((row.prompt + row.answer)[: 4 * OPENING]).replace("\ufffd", "")
    words = " ".join(text.split())[:OPENING]
    return words.rpartition(" ")[0] or words


def described(run: PretrainRun, frozen: Frozen) -> PretrainRun:
    """What run.json says of a run before its first step, besides the machine."""
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
        estimate=plan.estimate,
    )
