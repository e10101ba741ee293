"""The commands that `campaign.py` kills, with tiny models, and the files that they read."""

import json
from dataclasses import dataclass
from pathlib import Path

# everything that depends on the time is given, so that the same command gives the same bytes
EVER = "--budget 20h --threads 1 --seed 7 --general ../inputs/general.txt"
BY_HAND = " --steps 6 --batch-size 4"
SHORT = f"--model ../inputs/model {EVER}{BY_HAND} --limit-train 24 --limit-test 6"
CLOSED = f"../inputs/closed.jsonl --test ../inputs/closed-test.jsonl {SHORT}"
PAIRS = f"../inputs/pairs.jsonl --test ../inputs/pairs-test.jsonl {SHORT}"
PRETRAIN = (
    "pretrain ../inputs/text.txt --tokenizer bytes --layers 2 --width 32 --heads 2 --context 32 --batch 4 --steps 40 "
    "--lr 1e-3 --compute float32 --dropout 0.1 --checkpoint-every 10 --validate-every 10 --threads 1 --seed 5 --resume"
)
RUN = "run ../inputs/artifact ../inputs/questions.jsonl --precision fp32"


@dataclass(frozen=True)
class Verb:
    """Commands that run one after the other in a folder of their own; each may be killed. `printed`: the last line of
    stdout is a result too."""

    name: str
    commands: tuple[str, ...]
    printed: bool = False


VERBS = (
    Verb("export", ("export ../inputs/artifact --format hf --out out",)),
    Verb("quantize", ("quantize ../inputs/model --precision int8 --out out",)),
    Verb("quantize-artifact", ("quantize ../inputs/artifact --precision int4 --out out",)),
    Verb("rag-add", (
        "rag add kept.sqlite ../inputs/pages --lexical", "rag add kept.sqlite ../inputs/more-pages --lexical",
    )),
    # what is stored is whole: the second command reads it
    Verb("pull", ("pull ../inputs/model", "quantize model --precision int8 --out out")),
    Verb("run", (f"{RUN} --out out.jsonl",)),
    Verb("run-shards", (
        f"{RUN} --shard 1/2 --out out.jsonl", f"{RUN} --shard 2/2 --out out.jsonl",
        "join out.jsonl.1-of-2 out.jsonl.2-of-2 --out out.jsonl",
    )),
    Verb("inside", ("inside ../inputs/artifact --rows ../inputs/closed-test.jsonl --precision fp32 --json",), True),
    Verb("limits", (
        "limits ../inputs/artifact --suite context --rows ../inputs/closed-test.jsonl --precision fp32 --budget 20h "
        "--out out",
    )),
    Verb("pretrain", (f"{PRETRAIN} --out out",)),
    Verb("ternarize", (
        "ternarize ../inputs/model ../inputs/text.txt --steps 8 --learning-rate 1e-3 --seed 7 --resume --out out",
    )),
    Verb("distil", (
        "distil ../inputs/teacher --into ../inputs/model --prompts ../inputs/prompts.jsonl "
        f"--test ../inputs/closed-test.jsonl {EVER} --steps 6 --batch-size 4 --learning-rate 1e-3 --out out",
    )),
    *(Verb(f"adapt-{name}", (f"adapt {name} {CLOSED} --learning-rate 1e-3 --out out",))
      for name in ("lora", "full", "prompt_tuning")),
    Verb("adapt-nearest", (f"adapt nearest {CLOSED.replace(BY_HAND, '')} --out out",)),
    *(Verb(f"adapt-{name}", (f"adapt {name} {PAIRS} --learning-rate 1e-3 --out out",))
      for name in ("dpo", "orpo", "kto")),
    Verb("compare", (f"compare {CLOSED} --methods nearest,lora --learning-rate lora=1e-3 --seeds 2 --out out",)),
    Verb("compare-folds", (  # fewer rows than 200 and no --test: five folds
        f"compare ../inputs/closed.jsonl --model ../inputs/model {EVER}{BY_HAND} --methods nearest,lora "
        "--learning-rate lora=1e-3 --out out",
    )),
    Verb("compare-openings", (f"compare {CLOSED} --methods lora --out out",)),
    Verb("compare-places", (
        f"compare {CLOSED} --methods nearest,lora --learning-rate lora=1e-3 --places here,../inputs/place "
        "--out out",
    )),
    Verb("compare-more", (
        f"compare {CLOSED} --methods nearest,lora --learning-rate lora=1e-3 --out out",
        f"compare {CLOSED} --methods nearest,lora --learning-rate lora=1e-3 --more 20h --out out",
    )),
)  # fmt: skip
SETUP = {  # what is made before by commands, where a verb reads it
    "../inputs/artifact": f"adapt lora {CLOSED} --learning-rate 1e-3 --out ../inputs/artifact",
    "../inputs/teacher": (
        f"adapt linear ../inputs/closed.jsonl --test ../inputs/closed-test.jsonl --model ../inputs/model {EVER} "
        "--out ../inputs/teacher"
    ),
}


def write_inputs(folder: Path) -> None:
    """The model, the rows, the texts and the documents that the commands read, seeded."""
    import tiny_llama
    from tiny_comparison import CLOSED as TEXTS
    from tiny_comparison import closed_rows, write_pages, write_rows
    from tiny_pretraining import words

    folder.mkdir(parents=True)
    tiny_llama.write_hf_folder(folder / "model", seed=1)
    (folder / "general.txt").write_text(tiny_llama.CORPUS)
    (folder / "place").write_text('#!/bin/sh\nexec sh -c "$*"\n')  # as ssh gives its words to a shell
    (folder / "place").chmod(0o755)
    (folder / "text.txt").write_text(words(1, 1800))
    write_pages(folder / "pages")
    (folder / "more-pages").mkdir()
    (folder / "more-pages/desk.md").write_text("# Desk\n\n" + json.dumps(sorted(TEXTS)) + "\n")
    questions = [{"text": row["text"]} for row in closed_rows(40, "tomorrow")]
    write_rows(folder / "closed.jsonl", closed_rows(45, "please"))
    write_rows(folder / "closed-test.jsonl", closed_rows(9, "today"))
    write_rows(folder / "questions.jsonl", questions)
    write_rows(folder / "prompts.jsonl", questions)
    for name, count in (("pairs", 40), ("pairs-test", 10)):
        write_rows(folder / f"{name}.jsonl", [
            {"prompt": f"where is order {number} {name}", "chosen": f"money payment {number} the refund",
             "rejected": f"the order {number} did arrive, thank you"}
            for number in range(count)
        ])  # fmt: skip
