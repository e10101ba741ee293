"""Chat templates: the same text as transformers'; one that misbehaves costs a line, not the process."""

from pathlib import Path

import pytest
import tiny_llama

from riyaz.errors import RiyazError
from riyaz.text import template
from riyaz.text.template import render_chat

CHATML = tiny_llama.CHAT_TEMPLATE
HELLO = [{"role": "user", "content": "Hello"}]
CONVERSATIONS = [
    HELLO,
    [{"role": "system", "content": "Be brief.\n"}, {"role": "user", "content": " 2 < 3 & \"x\" 'y' "}],
    [
        {"role": "user", "content": "naïve café 日本語 🙂\t\n"},
        {"role": "assistant", "content": "def f(x):\n    return {{ x }}"},
        {"role": "user", "content": "{% if %} \\n \x00 \x7f"},
    ],
]
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
TEMPLATES = {
    "chatml": CHATML,
    "blocks": """
    {%- set ns = namespace(found=false) -%}
    {{ bos_token }}
    {%- for message in messages %}
        {%- if message['role'] == 'system' %}
            {%- set ns.found = true %}
            {%- continue %}
        {%- endif %}
        {{- '[' + message.role | upper + '] ' + message.content | trim + eos_token }}
    {% endfor %}
    {{ ns.found }} {{ 'tools' if tools else 'none' }} {{ documents is defined }} {{ missing is defined }}
    """,
    "json": "{{ messages | tojson }}{{ {'b': 1, 'a': 'é<'} | tojson(indent=2) }}{{ dict(a=1) | tojson }}",
    "generation": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{% set y = 1 %}\n"
        "{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ y is defined }}{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    ),
    "macro": (
        "{% macro turn(m, last) %}<{{ m.role }}>{{ m['content'] }}{{ ' end' if last }}{% endmacro %}"
        "{% for m in messages %}{{ turn(m, loop.last) }}"
        "{% if loop.index0 == 1 %}{% break %}{% endif %}{% endfor %}"
    ),
    "time": "{{ strftime_now('%Y') }} {{ dict.fromkeys(['a'], 1) }} {{ raise_exception is defined }}",
}


def render(source: str, conversation: list[dict] = HELLO, **variables: object) -> str:
    return render_chat(source, [conversation], add_generation_prompt=True, variables=variables)[0]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("prompt", [False, True])
def test_renders_as_transformers(name: str, prompt: bool) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    expected, _ = render_jinja_template(
        conversations=CONVERSATIONS,
        chat_template=TEMPLATES[name],
        add_generation_prompt=prompt,
        **VARIABLES,
    )
    texts = render_chat(TEMPLATES[name], CONVERSATIONS, add_generation_prompt=prompt, variables=VARIABLES)
    assert texts == expected


def test_no_conversations_and_no_messages() -> None:
    assert render_chat(CHATML, [], add_generation_prompt=True, variables={}) == []
    with pytest.raises(RiyazError, match="without messages"):
        render_chat(CHATML, [[]], add_generation_prompt=True, variables={})


def test_lone_surrogates_and_every_separator_survive() -> None:
    text = "a\ud800b\u2028\u2029\x85\r\n\x1c\U0010ffff"
    assert render("{{ messages[0].content }}", [{"role": "user", "content": text}]) == text


def test_ten_thousand_conversations_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """They go to the process in batches: to ask it for each conversation would take minutes."""
    rows = [[{"role": "user", "content": f"question {n} " + "word " * 40}] for n in range(10_000)]
    asked, ask = list[int](), template._ask

    def counted(request: dict, seconds: float) -> dict:
        asked.append(len(request["conversations"]))
        return ask(request, seconds)

    monkeypatch.setattr(template, "_ask", counted)
    texts = render_chat(CHATML, rows, add_generation_prompt=True, variables={})
    assert asked == [template.BATCH_CONVERSATIONS] * 50
    assert [f"question {n} " in text for n, text in enumerate(texts)] == [True] * len(rows)


def test_one_long_conversation() -> None:
    text = "word " * 1_000_000
    assert text in render(CHATML, [{"role": "user", "content": text}])


# --- a template that fails -------------------------------------------------------------------------------

FAILURES = {
    "{{ raise_exception('Roles must alternate:\\nuser \\x1b[31massistant') }}": "Roles must alternate: user",
    "{% if %}": "does not parse: line 1",
    "{% for m in messages %}": "does not parse",
    "{{ missing.attribute }}": "'missing' is undefined",
    "{{ messages[0].content + 1 }}": "TypeError",
    "{{ 1 / 0 }}": "ZeroDivisionError",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}": "RecursionError",
    "{% include 'other' %}": "no loader",
    "{{ " + "(" * 5000 + ")" * 5000 + " }}": "RecursionError",
    "{{ raise_exception('x' * 5000) }}": "xxx…",
}


@pytest.mark.parametrize("source", FAILURES, ids=lambda source: source[:30])
def test_failure_is_one_line(source: str) -> None:
    with pytest.raises(RiyazError) as caught:
        render(source)
    line = str(caught.value)
    assert line.startswith("chat template") and FAILURES[source] in line
    assert line.isprintable() and len(line) < 500
    assert render(CHATML).endswith("assistant\n")


def test_failure_names_the_conversation() -> None:
    source = "{% if messages[0].content == 'bad' %}{{ raise_exception('no') }}{% endif %}"
    rows = [[{"role": "user", "content": "bad" if n == 450 else "good"}] for n in range(1000)]
    with pytest.raises(RiyazError, match="conversation 451: refuses the conversation: no"):
        render_chat(source, rows, add_generation_prompt=True, variables={})


# --- a template that attacks -----------------------------------------------------------------------------

GLOBALS = (
    "lipsum",
    "cycler",
    "joiner",
    "namespace",
    "dict",
    "range",
    "self",
    "raise_exception",
    "strftime_now",
)
ATTACKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ (''|attr('__class__')).__mro__ }}",
    "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f')|attr('mro') }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ ['']|map(attribute='__class__')|list }}",
    "{{ ['']|map('attr', '__class__')|first|attr('__mro__') }}",
    "{{ [messages]|selectattr('__class__')|list }}",
    "{{ [['', 1]]|groupby('__class__')|list|attr('__mro__') }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{x.__class__.__init__.__globals__}'.format_map({'x': cycler}) }}",
    "{{ ('{0.__class__}'|attr('format'))('') }}",
    "{% set f = '{0.__class__.__mro__}'.format %}{{ f('') }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{% set ns = namespace(__init__=1) %}",
    "{{ dict.__base__ }}",
    "{{ dict.mro() }}",
    "{{ dict.update(messages[0], {'content': 1}) }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'content': 1}) }}",
    "{{ messages[0].clear() }}",
    "{{ ().__class__.__bases__[0].__subclasses__()[40]('SECRET').read() }}",
    "{{ open('SECRET').read() }}",
    "{{ __import__('os').environ }}",
    "{{ config.from_pyfile('SECRET') }}",
    "{% import 'SECRET' as x %}{{ x }}",
    "{% include 'SECRET' %}",
    "{% extends 'SECRET' %}",
    "{{ self._TemplateReference__context.environment.loader }}",
    "{{ self.__init__.__globals__.__builtins__ }}",
    "{{ loop.__class__ }}",
    "{% for x in [1] %}{{ loop._iterable.gi_frame }}{% endfor %}",
    "{% for x in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}{{ m.__init__ }}",
    "{{ (messages|map('upper')).gi_frame.f_builtins }}",
    "{{ ''.join.__self__.__class__.__mro__ }}",
    *(f"{{{{ {name}.__globals__.os.environ }}}}" for name in GLOBALS),
    *(f"{{{{ {name}.__init__.__globals__.__builtins__.open('SECRET').read() }}}}" for name in GLOBALS),
    *(f"{{{{ {name}.__class__.__mro__[-1].__subclasses__()|length }}}}" for name in GLOBALS),
]


@pytest.mark.parametrize("source", ATTACKS)
def test_attack_gets_nothing(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("the-secret-word")
    monkeypatch.setenv("RIYAZ_TEST_KEY", "the-secret-word")
    try:
        text = render(source.replace("SECRET", str(tmp_path / "secret")))
    except RiyazError as error:
        text = str(error)
        assert len(text) < 500
    # a forbidden attribute renders as nothing, or the sandbox says that it is forbidden
    for leak in ("the-secret-word", "<class", "<function", "built-in", "<frame", "<module"):
        assert leak not in text
    assert render(CHATML).endswith("assistant\n")


@pytest.mark.parametrize(
    "source", ["{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "{{ namespace(__call__=1) }}"]
)
def test_namespace_takes_no_private_name(source: str) -> None:
    with pytest.raises(RiyazError, match="begins with an underscore"):
        render(source)


def test_dict_changes_no_message() -> None:
    source = "{{ dict.update(messages[0], {'content': 'changed'}) }}"
    with pytest.raises(RiyazError, match="update"):
        render(source)


def test_messages_of_one_conversation_do_not_reach_another() -> None:
    source = "{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ cycler(1, 2).next() }}"
    assert render_chat(source, [HELLO] * 3, add_generation_prompt=True, variables={}) == ["11"] * 3


def test_range_is_limited() -> None:
    with pytest.raises(RiyazError, match="Range too big"):
        render("{% for i in range(10**9) %}{% endfor %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].content * 10 ** 7 }}",
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% for i in range(99999) %}{{ messages[0].content }}{{ messages[0].content * 99 }}{% endfor %}",
    ],
)
def test_output_is_limited(source: str) -> None:
    with pytest.raises(RiyazError, match="writes more than"):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10 ** 12 }}",
        "{% set x = ['x'] * 10 ** 9 %}",
        "{% set ns = namespace(x='xxx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{{ '%999999999999d' % 1 }}",
        "{{ 'x'.ljust(10 ** 11) }}",
    ],
)
def test_memory_is_limited(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "SECONDS_PER_BATCH", 30)
    with pytest.raises(RiyazError, match="needs more than 1024 MiB of memory"):
        render(source)
    assert render(CHATML).endswith("assistant\n")


def test_template_size_is_limited() -> None:
    with pytest.raises(RiyazError, match="characters long"):
        render("x" * (template.TEMPLATE_CHARACTERS + 1))
