"""Feeds mutated files to one reader, in this process: nothing but RiyazError may come out, in bounded memory.

    python tests/house/fuzz_readers.py gguf --inputs 50000 --seed 1       # the same command goes on where it stopped
    python tests/house/fuzz_readers.py all --seconds 600                  # `make fuzz`: every reader, so long together
    python tests/house/fuzz_readers.py gguf --atheris --inputs 1000000    # coverage-guided, where atheris is installed

READERS names the readers. Input N of a seed is always the same bytes; `--first N --inputs 1` repeats it. What a reader
has behind it lies in build/fuzz/readers, if it began with input 0. Prints inputs, refused, accepted,
crashes (each with its number and exception) and the peak memory; exit status 1 when anything crashed.
"""

import argparse
import io
import itertools
import json
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("house", "helpers", "sources")]
import fuzz_files  # noqa: E402
from fuzz_folders import folders_reader  # noqa: E402

STATES = Path(__file__).resolve().parents[2] / "build/fuzz/readers"
MEMORY = 2**30  # bytes of address space that the inputs may need beyond those of the start
NAME = Path("fuzz")
NUMBERS = (0, 1, 2, 31, 32, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**61, 2**63, 2**64 - 32, 2**64 - 1)
JUNK = (None, True, 0, -1, 1.5, 1e999, 2**63, 2**70, "", "x", "</s>", "\x1b[31m", "\ud800", [], {}, [0], [[]], {"a": 1})
TEXT = "The café 日本 🙂 <s></s> 12  \n\tx"


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A copy with one to four edits: bits, bytes, whole numbers, cuts, inserted, deleted and repeated runs."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(len(out) + 1), rng.randrange(8)
        end = at + rng.randint(1, 16)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = rng.randrange(256)
        elif kind == 2:
            out[at : at + 8] = struct.pack("<Q", rng.choice(NUMBERS))
        elif kind == 3:
            out[at : at + 4] = struct.pack("<I", rng.choice(NUMBERS) % 2**32)
        elif kind == 4 and rng.random() < 0.2:
            del out[at:]
        elif kind == 5:
            out[at:at] = rng.randbytes(end - at)
        elif kind == 6:
            del out[at:end]
        else:
            out[at:at] = out[at:end] * rng.choice((1, 1, 2, 50))
    return bytes(out)


def reshaped(value: object, rng: random.Random) -> object:
    """The JSON value with one part of it left out or replaced by junk."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
        return rng.choice(JUNK)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    out = value.copy()
    if rng.random() < 0.1:
        del out[key]
    else:
        out[key] = reshaped(value[key], rng)
    return out


def mutated_json(data: bytes, rng: random.Random) -> bytes:
    """JSON whose values are wrong, not its spelling."""
    value = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        value = reshaped(value, rng)
    return json.dumps(value).encode()


def mutated_header(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header has wrong values and the right length."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = mutated_json(data[8:end], rng)
    return len(header).to_bytes(8, "little") + header + data[end:]


def mutated_kept(data: bytes, rng: random.Random) -> bytes:
    """The file changed as `mutated` does, its first byte kept."""
    return data[:1] + mutated(data[1:], rng)


def mutated_bits(data: bytes, rng: random.Random) -> bytes:
    """One or two bits of the file changed, its first byte kept: what cannot bear any other length is still read."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 2)):
        out[rng.randrange(1, len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def mutated_member(data: bytes, rng: random.Random) -> bytes:
    """A Word file with one of its parts changed and packed again; another document changed as `mutated` does."""
    if data[1:3] != b"PK":
        return mutated_kept(data, rng)
    with zipfile.ZipFile(io.BytesIO(data[1:])) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(parts))
    parts[name] = mutated(parts[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return data[:1] + out.getvalue()


def read_all(file: object) -> None:
    """Reads every tensor of an accepted file."""
    for name, info in file.tensors.items():  # type: ignore[attr-defined]
        assert file.array(name).shape == info.shape  # type: ignore[attr-defined]


def gguf_reader() -> tuple[list[bytes], Callable[[bytes], None]]:
    """Whole small GGUF files, one with a tensor of every format; what is done with a mutated one."""
    import test_gguf

    from riyaz.sources import gguf

    entries, data = [], b""
    for number, (name, weights, layout) in gguf.TYPES.items():
        entries.append(test_gguf.tensor(name, (weights * 2,), number, len(data)))
        data += np.random.default_rng(0).bytes(2 * layout.itemsize)
        data += bytes(-len(data) % 32)
    words = test_gguf.pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 3) + test_gguf.text("word") * 3)
    formats = test_gguf.file_bytes([words], entries, data)
    return [test_gguf.HONEST, formats, test_gguf.LIES["overlap"][0]], lambda data: read_all(gguf.parse(NAME, data))


def safetensors_reader() -> tuple[list[bytes], Callable[[bytes], None]]:
    """A whole small safetensors file; what is done with a mutated one."""
    import test_safetensors

    from riyaz.sources import safetensors

    lies = [test_safetensors.LIES[name][0] for name in ("shape of nothing", "overlap")]
    return [test_safetensors.WHOLE, *lies], lambda data: read_all(safetensors.parse(NAME, data))


def tokenizer_reader() -> tuple[list[bytes], Callable[[bytes], None]]:
    """Tokenizers as JSON: GGUF metadata of both kinds, and a tokenizer.json with its settings."""
    from riyaz.errors import RiyazError
    from riyaz.text.tokenizer import Tokenizer
    from riyaz.text.tokenizer_files import TokenizerFiles
    from riyaz.text.tokenizer_gguf import from_gguf

    tokens = ["<unk>", "<s>", "</s>", "a", "b", "▁", "ab", "▁ab", "<0x0A>", "<0xC3>", "  "]
    spm = {"model": "llama", "tokens": tokens, "token_type": [2, 3, 3, 1, 1, 1, 1, 1, 6, 6, 4]}
    spm |= {"scores": [0, 0, 0, -5, -6, -4, -1, -2, 0, 0, 0], "bos_token_id": 1, "eos_token_id": 2}
    bpe = {"model": "gpt2", "pre": "smollm", "tokens": ["<s>", "a", "b", "ab", "Ġ", "Ġa"], "token_type": [3] + [1] * 5}
    bpe |= {"merges": ["a b", "Ġ a"], "eos_token_id": 0, "add_bos_token": True}
    metadata = [{f"tokenizer.ggml.{name}": value for name, value in kind.items()} for kind in (spm, bpe)]
    files = from_gguf(metadata[0], "seed")
    folder = {"definition": json.loads(files.definition), "settings": files.settings}

    def load(data: bytes) -> None:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RiyazError("not JSON") from error
        if not isinstance(value, dict):
            raise RiyazError("not a JSON object")
        if "definition" in value:
            settings = value.get("settings")
            settings = settings if isinstance(settings, dict) else {}
            tokenizer = Tokenizer(TokenizerFiles(json.dumps(value["definition"]), settings, None, []), "fuzz")
        else:
            tokenizer = Tokenizer.from_gguf(value)
        tokenizer.decode(tokenizer.encode(TEXT))

    return [json.dumps(seed, ensure_ascii=False).encode() for seed in (*metadata, folder)], load


def rows_reader() -> tuple[list[bytes], Callable[[bytes], None]]:
    """Files of rows: the first byte of an input names its format."""
    from riyaz.data.formats import load
    from riyaz.data.parquet import arrow_rows

    rows = [{"prompt": f"Frage {i}: wohin?", "completion": "nach Köln"} for i in range(3)]
    messages = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
    texts = [
        "".join(json.dumps(row) + "\n" for row in rows),
        json.dumps(rows),
        'text;label\n"one; ""two""\nthree";a\nfour;b\n',
        "question\tanswer\none\ttwo\n",
        json.dumps(messages) + "\n",
    ]
    suffixes = (".jsonl", ".json", ".csv", ".tsv", ".jsonl", ".parquet", ".arrow")
    tables = _tables(rows)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-rows-"))

    def read(data: bytes) -> None:
        path = folder / f"rows{suffixes[data[0] % len(suffixes) if data else 0]}"
        path.write_bytes(data[1:])
        if path.suffix == ".arrow":
            arrow_rows(path, None)
        else:
            load(path)

    seeds = [*map(str.encode, texts), *tables]
    return [bytes([place]) + seed for place, seed in enumerate(seeds)], read


def _tables(rows: list[dict[str, str]]) -> list[bytes]:
    """The rows as a Parquet file and as an Arrow file with compressed buffers."""
    import pyarrow
    import pyarrow.parquet

    table, parquet, arrow = pyarrow.Table.from_pylist(rows), io.BytesIO(), io.BytesIO()
    pyarrow.parquet.write_table(table, parquet)
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
    with pyarrow.ipc.new_stream(arrow, table.schema, options=options) as writer:
        writer.write_table(table)
    return [parquet.getvalue(), arrow.getvalue()]


def tables_reader() -> tuple[list[bytes], Callable[[bytes], None]]:
    """Parquet and Arrow files alone, each read by a child process."""
    return fuzz_files.tables_reader(
        _tables([{"prompt": f"Frage {i}: wohin?", "completion": "nach Köln"} for i in range(3)])
    )


def documents_reader() -> tuple[list[bytes], Callable[[bytes], None]]:
    """Documents to retrieve from: the first byte of an input names its format."""
    from docx import Document
    from pypdfium2 import PdfDocument

    from riyaz.retrieval.documents import read_documents

    word, pdf = io.BytesIO(), io.BytesIO()
    document = Document()
    document.add_heading("Opening hours")
    document.add_paragraph("The shop opens at nine.")
    document.save(word)
    empty = PdfDocument.new()
    empty.new_page(200, 200)
    empty.save(pdf)
    page = "<html><title>A &amp; B</title><body><h1>Hours</h1><p>nine&#58; &hellip;<ul><li>one<li>two</ul><script>x"
    seeds = [
        page.encode(),
        b"# Title\n\nText of a page.\n\n## Part\n\nMore text\xe2\x80\xa6\n",
        word.getvalue(),
        pdf.getvalue(),
    ]
    suffixes = (".html", ".md", ".docx", ".pdf")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-documents-"))

    def read(data: bytes) -> None:
        path = folder / f"page{suffixes[data[0] % len(suffixes) if data else 0]}"
        path.write_bytes(data[1:])
        read_documents(path)

    return [bytes([place]) + data for place, data in enumerate(seeds)], read


def mutated_file(data: bytes, rng: random.Random) -> bytes:
    """A file of a folder, its name kept: wrong values where it is JSON, else changed as `mutated` does."""
    try:
        return data[:1] + mutated_json(data[1:], rng)
    except (ValueError, RecursionError):
        return data[:1] + mutated(data[1:], rng)


READERS = {
    "rows": rows_reader,
    "folders": folders_reader,
    "workbooks": fuzz_files.workbooks_reader, "collections": fuzz_files.collections_reader,
    "checkpoints": fuzz_files.checkpoints_reader, "questions": fuzz_files.questions_reader,
    "schemas": fuzz_files.schemas_reader, "templates": fuzz_files.templates_reader,
    "tables": tables_reader, "pdfs": fuzz_files.pdfs_reader,
    "documents": documents_reader,
    "gguf": gguf_reader, "safetensors": safetensors_reader, "tokenizer": tokenizer_reader,
}  # fmt: skip
MUTATORS = {
    "rows": [mutated_kept],
    "folders": [mutated_kept, *[mutated_file] * 3],
    "documents": [mutated_kept, mutated_member],
    "workbooks": [mutated_kept, *[mutated_member] * 3],
    "collections": [mutated],
    "checkpoints": [mutated_kept, *[mutated_file] * 3],
    "questions": [mutated, *[mutated_json] * 3],
    "schemas": [mutated, *[mutated_json] * 3],
    "templates": [mutated],
    "tables": [mutated_kept, *[mutated_bits] * 3],
    "pdfs": [mutated],
    "gguf": [mutated],
    "safetensors": [mutated, mutated_header],
    "tokenizer": [mutated, *[mutated_json] * 3],
}

# How many of a reader's last seeds are read by a child process, which takes some tenths of a second, and how many
# inputs there are for one of these
CHILDREN = {"documents": (1, 50), "rows": (2, 1000)}
SLICE = 500  # inputs after which the state is written


def outcome(read: Callable[[bytes], None], data: bytes) -> str:
    """ "accepted", "refused", or what came out instead of a RiyazError of one short line."""
    from riyaz.errors import RiyazError

    try:
        read(data)
    except RiyazError as error:
        line = str(error)
        return "refused" if line.isprintable() and len(line) < 1000 else f"no clear line: {line[:200]!a}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]!a}"
    return "accepted"


Opened = tuple[list[bytes], Callable[[bytes], None]] | None


def _chosen(seeds: list[bytes], costly: int, every: int, rng: random.Random) -> bytes:
    """One of the seeds; of the last `costly` of them, one in `every` inputs."""
    if not costly:
        return rng.choice(seeds)
    return rng.choice(seeds[:-costly] if rng.randrange(every) else seeds[-costly:])


def fuzz(
    reader: str, inputs: int | None, seed: int, first: int = 0, seconds: float = float("inf"), opened: Opened = None
) -> tuple[dict[str, int], list[str]]:
    """Counts of refused and accepted inputs, and a line per crash; None: as many inputs as `seconds` allow. `opened`:
    what the reader of READERS returned before."""
    seeds, read = opened or READERS[reader]()
    for data in seeds[:1]:
        assert outcome(read, data) == "accepted", outcome(read, data)
    counts, crashes = {"refused": 0, "accepted": 0}, []
    end = time.monotonic() + seconds
    for number in itertools.count(first) if inputs is None else range(first, first + inputs):
        if time.monotonic() > end:
            break
        rng = random.Random(seed << 40 | number)
        result = outcome(read, rng.choice(MUTATORS[reader])(_chosen(seeds, *CHILDREN.get(reader, (0, 0)), rng), rng))
        if result in counts:
            counts[result] += 1
        else:
            crashes.append(f"input {number} of seed {seed}: {result}")
    return counts, crashes


def guided(reader: str, inputs: int) -> None:
    """Coverage-guided inputs; atheris prints its own account and stops at the first crash."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris, or leave out --atheris")
    with atheris.instrument_imports(include=["riyaz"]):
        import riyaz.sources
        import riyaz.text.tokenizer  # noqa: F401
    seeds, read = READERS[reader]()
    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz-{reader}-"))
    for number, data in enumerate(seeds):
        (corpus / str(number)).write_bytes(data)

    def once(data: bytes) -> None:
        result = outcome(read, data)
        if result not in ("accepted", "refused"):
            raise AssertionError(result)

    atheris.Setup([sys.argv[0], f"-runs={inputs}", "-rss_limit_mb=2048", "-max_len=4096", str(corpus)], once)
    atheris.Fuzz()


def every_reader(seconds: float, seed: int) -> None:
    """Fuzz each reader in a process of its own, `seconds` together; exit status 1 when anything crashed."""
    failed = False
    for reader in READERS:
        each = ["--seconds", str(seconds / len(READERS)), "--seed", str(seed)]
        failed |= subprocess.run([sys.executable, __file__, reader, *each], check=False).returncode != 0
    sys.exit(failed)


def campaign(reader: str, inputs: int | None, seconds: float, seed: int, first: int) -> dict[str, Any]:
    """Counts, seconds and crashes of inputs `first`, `first` + 1, ...; the state is kept where these begin with 0 and
    have a number, and the campaign goes on behind it."""
    state = STATES / f"{reader}-{seed}.json"
    known: dict[str, Any] = {"refused": 0, "accepted": 0, "crashes": [], "seconds": 0.0, "used": 0.0}
    kept = inputs is not None and first == 0
    if kept and state.exists():
        known = json.loads(state.read_text())
    opened, end = READERS[reader](), time.monotonic() + seconds
    while time.monotonic() < end:
        done = known["refused"] + known["accepted"] + len(known["crashes"])
        count = SLICE if inputs is None else min(SLICE, inputs - done)
        if count <= 0:
            break
        begin, used = time.perf_counter(), time.process_time()
        counts, crashes = fuzz(reader, count, seed, first + done, end - time.monotonic(), opened)
        known["seconds"] += time.perf_counter() - begin
        known["used"] += time.process_time() - used
        known |= {name: known[name] + counts[name] for name in counts} | {"crashes": known["crashes"] + crashes}
        if kept:
            STATES.mkdir(parents=True, exist_ok=True)
            state.write_text(json.dumps(known))
    return known


def limited(options: argparse.Namespace) -> None:
    """Fuzz one reader with little memory and print its line; exit status 1 when anything crashed."""
    READERS[options.reader]()  # imports before the limit
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    inputs = None if options.seconds else options.inputs
    known = campaign(options.reader, inputs, options.seconds or float("inf"), options.seed, options.first)
    for crash in known["crashes"][:20]:
        print(crash)
    total = known["refused"] + known["accepted"] + len(known["crashes"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{options.reader}: {total} inputs of seed {options.seed}, {known['refused']} refused, "
        f"{known['accepted']} accepted, {len(known['crashes'])} crashes; {known['seconds']:.0f} s "
        f"({total / max(known['used'], 1e-9):.0f} inputs per CPU second), peak {peak} MB"
    )
    sys.exit(bool(known["crashes"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", choices=[*READERS, "all"])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, help="in place of --inputs: as many inputs as take so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--atheris", action="store_true", help="coverage-guided")
    options = parser.parse_args()
    if options.reader == "all":
        return every_reader(options.seconds or 60.0, options.seed)
    if options.atheris:
        return guided(options.reader, options.inputs)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as tempfile.tempdir:  # the readers make theirs in it
        limited(options)


if __name__ == "__main__":
    main()
