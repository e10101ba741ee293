"""Where a tokenizer comes from: GGUF metadata and folders, broken ones too; and the folder it saves."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_llama
from tokenizer_kinds import KINDS, LLAMA3_TEMPLATE, MESSAGES, TEXTS, llama3, pair, row_of, smollm, user
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from riyaz.errors import RiyazError
from riyaz.text.tokenizer import Tokenizer
from riyaz.text.tokenizer_files import NO_FLAGS
from riyaz.text.tokenizer_gguf import LLAMA3_SPLIT


def metadata(folder: Path, **changes: object) -> dict:
    """GGUF metadata of the folder's tokenizer."""
    model = json.loads((folder / "tokenizer.json").read_text())
    tokens = dict(sorted(model["model"]["vocab"].items(), key=lambda item: item[1]))
    tokens |= {token["content"]: token["id"] for token in model["added_tokens"]}
    special_ids = {token["id"] for token in model["added_tokens"]}
    return {
        "general.architecture": "llama",
        "llama.context_length": np.uint32(1024),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.token_type": np.array([3 if number in special_ids else 1 for number in tokens.values()]),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": np.uint32(1),
        "tokenizer.ggml.eos_token_id": np.uint32(2),
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": tiny_llama.CHAT_TEMPLATE,
    } | {name.replace("__", "."): value for name, value in changes.items()}


def test_gguf_gives_the_ids_of_the_folder_it_was_made_from(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder, (ours, theirs) = smollm(tmp_path / "a"), pair("smollm")
    made = Tokenizer.from_gguf(metadata(folder))
    assert made.render(MESSAGES) == ours.render(MESSAGES)
    assert (made.eos_ids, made.bos_id, made.vocab_size) == (ours.eos_ids, ours.bos_id, ours.vocab_size)
    assert made.beginning == () == ours.beginning, "the file says not to add it"
    made.save(tmp_path / "b")
    again = AutoTokenizer.from_pretrained(tmp_path / "b")
    expected = theirs.apply_chat_template(MESSAGES)["input_ids"]
    assert again.apply_chat_template(MESSAGES)["input_ids"] == expected
    assert again.model_max_length == 1024 and again.eos_token == "<|im_end|>"


def test_gguf_with_the_pre_tokenizer_of_llama_3(tmp_path: Path) -> None:
    folder, (ours, theirs) = llama3(tmp_path / "a"), pair("llama3")
    data = metadata(folder, tokenizer__ggml__pre="llama-bpe", tokenizer__chat_template=LLAMA3_TEMPLATE)
    data |= {
        "tokenizer.ggml.bos_token_id": 400,
        "tokenizer.ggml.eos_token_id": 404,
        "tokenizer.ggml.eot_token_id": 401,
    }
    del data["tokenizer.ggml.add_bos_token"]  # the default of this kind is to add it
    made = Tokenizer.from_gguf(data)
    assert made.render(MESSAGES) == ours.render(MESSAGES) and made.eos_ids == ours.eos_ids
    made.save(tmp_path / "b")
    from transformers import AutoTokenizer

    again = AutoTokenizer.from_pretrained(tmp_path / "b")
    for text in TEXTS:
        assert again(text)["input_ids"] == theirs(text)["input_ids"] == [400, *made.encode(text)]


GGUF_ORACLES = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "default": pre_tokenizers.ByteLevel(add_prefix_space=False),
    None: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)]),
    "llama-bpe": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


@pytest.mark.parametrize("pre", GGUF_ORACLES)
def test_gguf_pre_tokenizers(pre: str | None, tmp_path: Path) -> None:
    data = metadata(smollm(tmp_path), tokenizer__ggml__pre=pre)
    if pre is None:
        del data["tokenizer.ggml.pre"]
    # digits and punctuation that merge, and a whole word that no merges make
    data["tokenizer.ggml.merges"] += ["1 2", "12 3", "123 4", "Ġ 1", "! !", "Ċ Ċ"]
    data["tokenizer.ggml.tokens"] += ["12", "123", "1234", "Ġ1", "!!", "ĊĊ", "Ġzyx"]
    data["tokenizer.ggml.token_type"] = [*data["tokenizer.ggml.token_type"].tolist(), *[1] * 7]
    made = Tokenizer.from_gguf(data)
    merges = [tuple(merge.split(" ")) for merge in data["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(data["tokenizer.ggml.tokens"])}
    oracle = Backend(models.BPE(vocabulary, merges, ignore_merges=pre == "llama-bpe"))
    oracle.pre_tokenizer = GGUF_ORACLES[pre]
    for text in [*TEXTS, "1234 12345 x12", "what!!\n\nand so!!\n", "a zyx"]:
        assert made.encode(text) == oracle.encode(text).ids


def test_text_never_merges_into_a_control_token(tmp_path: Path) -> None:
    folder = smollm(tmp_path)
    definition = json.loads((folder / "tokenizer.json").read_text())
    model = definition["model"]
    model["vocab"] |= {"</": 512, "</s": 513, "</s>": 514, "</s></s>": 515}
    model["merges"] += [["<", "/"], ["</", "s"], ["</s", ">"], ["</s>", "</s>"]]
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.from_folder(folder)
    ids = tokenizer.encode("a</s></s>b")
    assert not {514, 515} & set(ids) and tokenizer.decode(ids) == "a</s></s>b"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer__ggml__model": "t5"}, "tokenizer kind 't5' is not supported"),
        ({"tokenizer__ggml__model": None}, "the file holds no tokenizer"),
        ({"tokenizer__ggml__pre": "tekken"}, "pre-tokenizer 'tekken' is not supported"),
        ({"tokenizer__ggml__tokens": []}, "tokens are missing"),
        ({"tokenizer__ggml__tokens": ["a", "a"]}, "not as many"),
        ({"tokenizer__ggml__token_type": [1, 3]}, "not as many"),
        ({"tokenizer__ggml__eos_token_id": 512}, "eos_token_id 512 is outside the 512 tokens"),
        ({"tokenizer__ggml__bos_token_id": -1}, "bos_token_id -1 is outside"),
        ({"tokenizer__ggml__add_bos_token": "false"}, "add_bos_token is 'false', neither true nor false"),
        ({"tokenizer__ggml__add_eos_token": [True]}, "add_eos_token is [True], neither true nor false"),
        ({"tokenizer__ggml__merges": ["Ġ nothere"]}, "not a valid tokenizer"),
        ({"tokenizer__ggml__merges": ["Ġ"]}, "is not a tokenizer"),
    ],
)
def test_broken_gguf_is_one_line(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(RiyazError) as caught:
        Tokenizer.from_gguf(metadata(smollm(tmp_path), **changes))
    assert message in str(caught.value) and "GGUF" in str(caught.value)


# --- wrong input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("tokenizer.json", None, "there is no tokenizer.json"),
        ("tokenizer.json", "{", "not JSON"),
        ("tokenizer.json", "[]", "not a JSON object"),
        ("tokenizer.json", "{}", "not a valid tokenizer"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {}, "merges": 3}}', "not a valid tokenizer"),
        ("tokenizer.json", '{"model": {"type": "Other", "vocab": {"a": 0}}}', "not a valid tokenizer"),
        ("tokenizer.json", '{"added_tokens": [3], "model": {"vocab": {}}}', "not a valid tokenizer"),
        ("tokenizer_config.json", "not json", "not JSON"),
        (
            "tokenizer.json",
            '{"added_tokens": [{"content": 5, "id": 1}], "model": {"vocab": {}}}',
            "not a valid tokenizer",
        ),
        (
            "tokenizer.json",
            '{"added_tokens": [{"content": "a", "id": []}], "model": {"vocab": {}}}',
            "no text or no id",
        ),
        ("tokenizer_config.json", '{"bos_token": 3}', "not a valid tokenizer"),
        ("tokenizer_config.json", '{"bos_token": {"content": []}}', "not a valid tokenizer"),
        ("tokenizer_config.json", '{"additional_special_tokens": 5}', "not a valid tokenizer"),
        ("special_tokens_map.json", "[", "not JSON"),
        ("special_tokens_map.json", '{"cls_token": 3}', "names a special token that is not a string"),
        ("tokenizer.json", '{"model": {"vocab": {}}, "post_processor": {"single": [{}]}}', "not a valid tokenizer"),
        ("generation_config.json", '{"eos_token_id": [[2]]}', "is not a token id"),
        ("generation_config.json", "[", "not JSON"),
        ("chat_template.jinja", b"\xff\xfe", "cannot be read"),
    ],
)
def test_broken_folder_is_one_line(file: str, text: str | bytes | None, message: str, tmp_path: Path) -> None:
    folder = smollm(tmp_path)
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RiyazError) as caught:
        Tokenizer.from_folder(folder)
    assert message in str(caught.value) and str(tmp_path) in str(caught.value)


def test_id_that_loads_as_another_is_refused(tmp_path: Path) -> None:
    folder = llama3(tmp_path)
    definition = json.loads((folder / "tokenizer.json").read_text())
    definition["added_tokens"][-1]["id"] += 5
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(RiyazError, match="is listed with id 409 but loads as 404"):
        Tokenizer.from_folder(folder)


def test_no_end_token_is_one_line(tmp_path: Path) -> None:
    folder = smollm(tmp_path)
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    with pytest.raises(RiyazError, match="names no end-of-text token"):
        row_of(Tokenizer.from_folder(folder), user("x"), "y")


def test_template_in_tokenizer_config(tmp_path: Path) -> None:
    folder = smollm(tmp_path)
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": tiny_llama.CHAT_TEMPLATE}]
    for template in (tiny_llama.CHAT_TEMPLATE, named):
        (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
        assert Tokenizer.from_folder(folder).template == tiny_llama.CHAT_TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": 3}))
    with pytest.raises(RiyazError, match="chat_template is not a string"):
        Tokenizer.from_folder(folder)


OPENED = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}"


@pytest.mark.parametrize("flags", [False, True])
def test_tokens_that_only_the_older_file_names(flags: bool, tmp_path: Path) -> None:
    """{"bos_token": "…"} in special_tokens_map.json, bare or with its flags, as transformers reads it."""
    from transformers import AutoTokenizer

    folder = smollm(tmp_path / "a")
    (folder / "chat_template.jinja").write_text(OPENED)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    older = {name: config.pop(name, None) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    older = {name: token and {"content": token, **NO_FLAGS} if flags else token for name, token in older.items()}
    (folder / "special_tokens_map.json").write_text(json.dumps({k: v for k, v in older.items() if v}))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": None}))
    ours, theirs = Tokenizer.from_folder(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.render(MESSAGES) == theirs.apply_chat_template(MESSAGES, add_generation_prompt=True)["input_ids"]
    assert ours.render_texts(MESSAGES)[0] == "<|im_start|>[user] Hello<|im_end|>"
    ours.save(tmp_path / "b")
    again = AutoTokenizer.from_pretrained(tmp_path / "b")
    assert again.apply_chat_template(MESSAGES) == theirs.apply_chat_template(MESSAGES)
    assert (again.eos_token, again.pad_token) == (theirs.eos_token, theirs.pad_token)


def test_tokenizer_config_comes_before_the_older_file(tmp_path: Path) -> None:
    folder = smollm(tmp_path)
    (folder / "chat_template.jinja").write_text(OPENED)
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<|endoftext|>"}))
    assert Tokenizer.from_folder(folder).render_texts([user("Hi")]) == ["<|im_start|>[user] Hi<|im_end|>"]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("steps", [False, True])
def test_bos_that_is_also_the_end_begins_a_text_only_where_it_is_put_before(
    before: bool, steps: bool, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = smollm(tmp_path)
    end = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    template = {"type": "TemplateProcessing", "single": [end, text, end] if before else [text, end], "pair": [text]}
    template["special_tokens"] = {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}
    definition = json.loads((folder / "tokenizer.json").read_text())
    definition["post_processor"] = {"type": "Sequence", "processors": [template]} if steps else template
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    named = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | named))
    ours, theirs = Tokenizer.from_folder(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.beginning == ((0,) if before else ())
    assert [*ours.beginning, *ours.encode("hello"), 0] == theirs("hello")["input_ids"]


def test_import_is_light() -> None:
    code = "import sys, riyaz.text.tokenizer; print({'torch', 'numpy', 'jinja2', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("kind", KINDS)
def test_saved_folder_loads_alike(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ours, _ = pair(kind)
    ours.save(tmp_path)
    again, theirs = Tokenizer.from_folder(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert theirs.chat_template == again.template == ours.template
    assert (theirs.bos_token_id, theirs.vocab_size <= ours.vocab_size) == (ours.bos_id, True)
    assert theirs.eos_token_id in ours.eos_ids
    expected = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True)["input_ids"]
    assert ours.render(MESSAGES) == again.render(MESSAGES) == expected


def test_saving_drops_code_names_and_keeps_settings(tmp_path: Path) -> None:
    folder = smollm(tmp_path / "a")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {
        "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]},
        "chat_template": "old",
        "model_max_length": 77,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    Tokenizer.from_folder(folder).save(tmp_path / "b")
    saved = json.loads((tmp_path / "b" / "tokenizer_config.json").read_text())
    assert saved["model_max_length"] == 77 and not {"auto_map", "chat_template"} & saved.keys()
    assert (tmp_path / "b" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_model_without_a_template(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    for kind in (smollm, llama3):
        folder = kind(tmp_path / kind.__name__)
        (folder / "chat_template.jinja").unlink()
        ours = Tokenizer.from_folder(folder)
        assert ours.template_name == "plain"
        text = ours.render_texts([[{"role": "system", "content": "Be brief."}, *user("Hi")]])[0]
        assert text.removeprefix("<|begin_of_text|>") == "System:\nBe brief.\n\nUser:\nHi\n\nAssistant:\n"
        row = row_of(ours, user("Hi"), "Hello")
        assert all(row.checks.values())
        assert (row.prompt[0] == ours.bos_id) == (kind is llama3)
        ours.save(tmp_path / "saved")
        theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
        assert theirs.apply_chat_template(MESSAGES)["input_ids"] == ours.render(MESSAGES, add_generation_prompt=False)
    assert pair("smollm")[0].template_name == "model"
