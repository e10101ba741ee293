"""What the tests of report.html share: a rich fabricated comparison, rows of answers, and text that attacks a page."""

import html.parser
from typing import Any

from fake_comparison import arm, comparison

from riyaz.json_files import from_json
from riyaz.results import Answer

METHODS = ("nearest", "zero_shot", "few_shot", "rag", "prompt_tuning", "lora", "full", "rag_lora", "novel_way")
COSTS = (0.04, 410.0, 980.5, 1250.0, 425.0, 520.0, 405.0, 1310.0, 600.0)
SLICES = ("asked", "documents_only", "routing", "unanswerable")
COMMANDS = [
    ("answer a file", "riyaz run workshop QUESTIONS.jsonl --out ANSWERS.jsonl"),
    ("talk", "riyaz chat workshop"),
]
VOID = {"meta", "link", "br", "hr", "input"}

# Markup, script, policy and parser tricks; every one of them tries to set window.pwned or to fetch something.
ATTACKS = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "<!--<script>window.pwned=1//-->",
    "<img src=x onerror=window.pwned=1>",
    '"><img src="http://localhost:9/a.png" onerror="window.pwned=1">',
    "' onmouseover='window.pwned=1' autofocus onfocus='window.pwned=1' x='",
    "<svg/onload=window.pwned=1>",
    "</title><svg><animate onbegin=window.pwned=1 attributeName=x dur=1s>",
    "</style><style>@import 'http://localhost:9/x.css';*{background:url(http://localhost:9/y)}</style>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<a href=javascript:window.pwned=1>x</a> [x](javascript:window.pwned=1) ![x](http://localhost:9/z.png)",
    "</textarea></select></noscript></template></svg></math><script>alert(1)</script>",
    "<meta http-equiv=refresh content='0;url=http://localhost:9/'><base href=http://localhost:9/>",
    "<form action=http://localhost:9/><button>x</button></form><link rel=stylesheet href=http://localhost:9/s.css>",
    "{{constructor.constructor('window.pwned=1')()}} ${window.pwned=1} `${window.pwned=1}`",
    "\u2028window.pwned=1\u2029 \x00<scr\x00ipt>window.pwned=1</script> \u202egnp.exe \ud800",
    "$\\frac{1}{0}$ $x$ \\u003cscript\\u003e &lt;script&gt; &#x3c;script&#x3e; ]]>",
)


def rich(**known: Any) -> dict[str, Any]:
    """A comparison of nine methods with everything that a page can show."""
    arms = []
    for place, (method, cost) in enumerate(zip(METHODS, COSTS, strict=True)):
        score = 0.2517 + 0.0613 * place
        made = arm(
            method, metric="exact_match", score=score, ci_low=score - 0.0521, ci_high=score + 0.0534,
            ms_per_answer=cost, peak_rss_mb=911.0 + place, artifact_mb=0.04 + place,
            slices={name: {"score": round(score - 0.03 * i, 4), "n": 50 + i} for i, name in enumerate(SLICES)},
        )  # fmt: skip
        if method in ("prompt_tuning", "lora", "full", "rag_lora"):
            curve = [
                {"step": s, "loss": 3.1 / (1 + s / 20), "valid_loss": 2.9 / (1 + s / 25)} for s in range(0, 60, 10)
            ]
            made |= {"train_seconds": 180.0 + place, "search_seconds": 90.0, "trainable_params": 4_884_480 + place,
                     "forgetting_nats": 0.1234 + place / 100, "curve": curve, "chosen": {"steps": 50}}  # fmt: skip
        if method.startswith("rag"):
            made["retrieval"] = {
                "recall": {"1": 0.7112, "3": 0.8813, "5": 0.9514, "10": 0.9715}, "mrr": 0.8016, "k": 3,
                "closed_book": 0.1817, "retrieved": score, "oracle": 0.8718, "grounded_nats": 1.8419,
            }  # fmt: skip
        arms.append(made)
    arms[5]["seeds"] = [{"seed": 0, "score": 0.5582}, {"seed": 1, "score": 0.5473}]
    arms.append(arm("failing", status="failed", metric=None, ms_per_answer=None, reason="out of memory at step 3"))
    document = comparison(arms=arms, pick="rag_lora", runner_up="lora", decision="undecided", rows_needed=[400, 8000])
    document["data_curve"] = [
        {"rows": rows, "score": 0.3 + rows / 2000, "ci_low": 0.25 + rows / 2000, "ci_high": 0.36 + rows / 2000}
        for rows in (75, 150, 300)
    ]
    document["curve_method"] = "lora"
    document["data"] = {
        "files": {"train": {"path": "train.jsonl", "sha256": "ab" * 32, "format": "question,answer"}},
        "rows": {"train": 240, "valid": 60, "test": 300}, "duplicates": 12, "conflicts": 1,
        "leakage": {"test_rows": 2, "share": 0.01, "dropped": 2},
        "notes": ["training rows that repeat a prompt: 12"],
        "labels": {"yes": {"train": 3, "test": 4}, "no": {"train": 5, "test": 6}},
        "rendered": [[["<|im_start|>user\nMay I return it?<|im_end|>", False], ["Yes.<|im_end|>", True]]] * 5,
    }  # fmt: skip
    document["pairs"] = [
        {
            "arms": ["rag_lora", "lora"],
            "difference": 0.1234,
            "low": 0.01,
            "high": 0.2,
            "p_value": 0.03,
            "test": "mcnemar",
        }
    ]
    return document | known


def answers(document: dict[str, Any], count: int) -> dict[str, list[Answer]]:
    """`count` answers of every arm, as the report takes them."""
    return typed_rows(rows(document, count))


def typed_rows(found: dict[str, list[dict]]) -> dict[str, list[Answer]]:
    """Rows of predictions.jsonl as the report takes them."""
    return {method: [from_json(Answer, row, "a.jsonl") for row in rows] for method, rows in found.items()}


def rows(document: dict[str, Any], count: int) -> dict[str, list[dict]]:
    """`count` rows of answers for every arm; arm number i is right on every (i + 2)th row."""
    found: dict[str, list[dict]] = {}
    for place, made in enumerate(document["arms"]):
        found[made["method"]] = told = []
        for number in range(count):
            right = number % (place + 2) == 0
            row: dict[str, Any] = {
                "where": f"test.jsonl:{number + 1}", "prompt": f"Question {number} about a lamp?",
                "answers": ["30 days"],
                "prediction": "30 days" if right else f"answer {place}", "score": float(right),
                "slice": SLICES[number % 4], "log_probability": -0.5, "answer_log_probability": None,
            }  # fmt: skip
            if made["method"].startswith("rag"):
                row["citations"] = [{"doc_id": f"d{number}", "title": "Returns", "start": 10, "end": 90}]
            told.append(row)
    return found


def attacked() -> tuple[dict[str, Any], dict[str, list[dict]]]:
    """The same with an attack wherever a user's, a model's or a document's text can stand."""
    document = rich()
    for place, made in enumerate(document["arms"]):
        text = ATTACKS[place % len(ATTACKS)]
        made["reason"], made["status"] = text, "cut" if place % 2 else made["status"]
        made["slices"] = {text: {"score": 0.5, "n": 4} for text in ATTACKS}
        made["chosen"], made["checks"] = {text: text, "many": [{text: text}]}, {text: {"ok": True, text: text}}
        made["extras"] = {text: 0.5}
        made["about"] = {"what": text, "suits": text, "colour": place % 10, "mark": "o", "weights": text}
    document["reason"], document["command"] = " ".join(ATTACKS), " ".join(ATTACKS)
    document["hardware"] = document["versions"] = dict.fromkeys(ATTACKS, ATTACKS[3])
    document["model"] = {"name": ATTACKS[6], "sha256": ATTACKS[4]}
    document["data"] |= {
        "notes": list(ATTACKS), "labels": {text: {"train": 1} for text in ATTACKS}, "instruction": ATTACKS[1],
        "files": {ATTACKS[0]: {"path": ATTACKS[4], "format": ATTACKS[5], "sha256": ATTACKS[6]}},
        "rendered": [[[text, True], [text, False]] for text in ATTACKS[:5]],
    }  # fmt: skip
    document["pairs"][0] |= {"arms": list(ATTACKS[:2]), "test": ATTACKS[2]}
    predictions = rows(document, len(ATTACKS))
    for told in predictions.values():
        for row, text in zip(told, ATTACKS, strict=True):
            row |= {"prompt": text, "prediction": text * 2, "answers": [text], "where": text, "slice": text}
            row["citations"] = [{"doc_id": text, "title": text, "start": text, "end": text}]
    return document, predictions


class Page(html.parser.HTMLParser):
    """Elements, attributes and text of a page, with what is not well-formed in `problems`."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.problems: list[str] = []
        self.blocks: dict[str, str] = {}
        self.feed(text)
        self.close()
        if self.open:
            self.problems.append(f"never closed: {self.open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.problems.append(f"<{tag}> has an attribute twice")
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            kind = self.elements[-1][1].get("type") or self.open[-1]
            self.blocks[kind] = self.blocks.get(kind, "") + data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """Everything that a reader sees, in one line."""
        return " ".join(" ".join(self.texts).split())
