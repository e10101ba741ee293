"""What the keys of the JSON document of `riyaz inside TARGET TEXT --json` hold, for docs/reference.md."""

ROWS: tuple[tuple[str, str], ...] = (  # keys, of which later ones have the path of the first; what they hold
    ("target, text, chat, version", "what was asked for, and the document's version"),
    (
        "model",
        "`name`, `served` (how its weights are held), `parameters`, `layers` L, `width` C, `heads`, `kv_heads`, "
        "`head_width`, `vocabulary`",
    ),
    ("at", "the number, from 0, of the token looked at, below all of `tokens`"),
    ("tokens[].id, text", "each token; a vector of a soft prompt has the id -1"),
    (
        "tokens[].norm, vector",
        "the length of its row of the embedding, as the first layer reads it, and the first 48 of its C numbers",
    ),
    ("tokens[].near[].id, text, cosine", "the five nearest rows of the embedding"),
    ("layers[].layer", "0: before the first layer; 1, … L: behind that layer"),
    ("layers[].norm", "the length of the residual stream there"),
    (
        "layers[].attention, mlp",
        "of what each half of the layer added, its length `norm`, and its `share` of the final stream; not at 0",
    ),
    ("layers[].lens[].id, text, probability", "the five likeliest next tokens if the model ended there"),
    ("layers[].answer", "of the token that is likeliest in the end, its `rank` there, from 1, and its `probability`"),
    ("embedding_share", "the embedding's share of the final stream; with those of all layers it adds up to 1"),
    ("appears", "the number of layers after which that token leads and stays ahead"),
    ("attention.layer, head", "whose weights are shown, both from 0; `head` null: the mean of the layer's heads"),
    ("attention.weights", "T rows of T numbers: what each token looks at"),
    (
        "attention.heads[].layer, head, name",
        "every head, from 0, and its name by the rule of [Inside](inside.md#attention), or an empty text",
    ),
    ("attention.heads[].previous, first, itself", "in what share of positions its largest weight is there"),
    (
        "attention.heads[].copied",
        "its mean weight on what followed the same token the first time, of random tokens that come twice",
    ),
    ("product.token, count, score", "the likeliest next token, the number of its products, and their sum"),
    (
        "product.numbers[].place, x, w, product",
        "the eight largest of them: hidden state times row of the output matrix",
    ),
    (
        "product.second, difference, engine",
        "the second token with its score, the difference of both scores, and that of their log-probabilities in the "
        "engine",
    ),
    (
        "product.matrices[]",
        "`name`, `count` of such matrices, `rows`, `columns`, and the `multiplications` of one token in all of them",
    ),
    ("product.attention_multiplications, multiplications", "those of attention, and of all together"),
    (
        "product.speed",
        "measured `tokens_s`, the `billions_s` of multiplications that they are, and those of 8-bit integers in "
        "registers, `peak_billions_s`; null where it was not measured",
    ),
    (
        "next[].id, text, probability, drawn",
        "the ten likeliest next tokens; `drawn`: the probability by the options for drawing",
    ),
    ("before.target", "with `--before`: the other model"),
    (
        "before.divergence",
        "for every token of the text the KL divergence of the next token from the other model's, in nats",
    ),
    (
        "before.moved, lens",
        "for 0, 1, … L layers how far the stream lies from the other model's, divided by its length, and the KL "
        "divergence of the lens in nats",
    ),
    ("before.parts", "the first number of layers behind which the lens diverges by more than .01 nats; null: none"),
    ("before.touched", "`prompt`: its parts; how many `vectors`, `pairs`, `weights` and `labels` of a head"),
    (
        "before.linears[].name, relative, spectrum",
        "each changed matrix, the length of the change divided by its own, and of a LoRA the singular values of B·A",
    ),
    ("codes[].name, kind", "with `--codes`: each matrix in few bits, and how the file stores it"),
    (
        "codes[].first, counts, zeros",
        "the code of the first count, how often each code comes, and the share of weights that are 0, null where no "
        "code is 0",
    ),
)


def table() -> str:
    """The Markdown table of the keys."""
    head = "| key of `--json` | what it holds |\n|---|---|\n"
    return head + "".join(f"| {_code(keys)} | {text} |\n" for keys, text in ROWS)


def paths() -> list[str]:
    """Every key with its whole path, such as `layers[].norm`."""
    whole = []
    for keys, _ in ROWS:
        first, *others = keys.split(", ")
        parent = first.rpartition(".")[0]
        whole += [first, *(f"{parent}.{other}" if parent else other for other in others)]
    return whole


def _code(keys: str) -> str:
    return ", ".join(f"`{key}`" for key in keys.split(", "))
