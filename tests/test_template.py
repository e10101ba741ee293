"""Chat templates: the same text as transformers'; one that misbehaves costs a line, not the process."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny

from riyaz import template
from riyaz.errors import RiyazError
from riyaz.template import render_chat

CHATML = tiny.CHAT_TEMPLATE
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


def worker_pid() -> int:
    render(CHATML)
    assert template._worker._process is not None
    return template._worker._process.pid


def state_and_parent(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:  # no /proc on this system, or ended since
        return ["", ""]


def gone(pid: int, seconds: float = 20) -> bool:
    """Whether a process ends in time; a zombie has ended only if it is another process's to collect."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if state_and_parent(pid)[0] == "Z" and state_and_parent(pid)[1] != str(os.getpid()):
            return True
        time.sleep(0.02)
    return False


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


def test_ten_thousand_conversations_in_one_call() -> None:
    rows = [[{"role": "user", "content": f"question {n} " + "word " * 40}] for n in range(10_000)]
    render(CHATML)
    start = time.process_time(), time.monotonic()
    texts = render_chat(CHATML, rows, add_generation_prompt=True, variables={})
    assert time.process_time() - start[0] < 2 and time.monotonic() - start[1] < 10
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


def test_messages_of_one_conversation_do_not_reach_another() -> None:
    source = "{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ cycler(1, 2).next() }}"
    assert render_chat(source, [HELLO] * 3, add_generation_prompt=True, variables={}) == ["11"] * 3


LOOPS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(9999) %}{% for j in range(99999) %}{% set x = i %}{% endfor %}{% endfor %}",
    "{% set x = 9 ** (9 ** 9) %}{{ x }}",
    "{{ (9 ** (messages|length * 10 ** 7)) ** 100 }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(100) }}",
    "{% for i in range(99999) %}{% set x = range(99999)|sum %}{% endfor %}",
]


@pytest.mark.parametrize("source", LOOPS)
def test_endless_template_is_killed(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "SECONDS_PER_BATCH", 0.4)
    pid = worker_pid()
    start = time.monotonic()
    with pytest.raises(RiyazError, match="does not finish within"):
        render(source)
    assert time.monotonic() - start < 10
    assert gone(pid)
    monkeypatch.undo()
    assert render(CHATML).endswith("assistant\n")


def test_range_is_limited() -> None:
    with pytest.raises(RiyazError, match="Range too big"):
        render("{% for i in range(10**9) %}{% endfor %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10 ** 7 }}",
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
def test_memory_is_limited(source: str) -> None:
    with pytest.raises(RiyazError, match=r"memory|too big|too large|OverflowError|does not finish"):
        render(source)
    assert render(CHATML).endswith("assistant\n")


def test_template_size_is_limited() -> None:
    with pytest.raises(RiyazError, match="characters long"):
        render("x" * (template.TEMPLATE_CHARACTERS + 1))


# --- the process -----------------------------------------------------------------------------------------


def test_one_worker_serves_all_calls_and_is_replaced_when_it_dies() -> None:
    pid = worker_pid()
    assert worker_pid() == pid
    with pytest.raises(RiyazError):
        render("{{ raise_exception('no') }}")
    assert worker_pid() == pid
    os.kill(pid, signal.SIGKILL)
    assert worker_pid() != pid and gone(pid)


def test_a_worker_killed_in_the_middle_is_replaced_once() -> None:
    pid = worker_pid()
    slow = "{% for i in range(30000) %}{% for j in range(60) %}{% endfor %}{% endfor %}done"
    killer = threading.Timer(0.02, os.kill, (pid, signal.SIGKILL))
    killer.start()
    assert render(slow) == "done"
    killer.join()
    assert worker_pid() != pid


def test_a_template_that_kills_every_worker_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "_talk", lambda process, line, most: b"ready\n" if not line else b"")
    template._worker.stop()
    with pytest.raises(RiyazError, match="ends the process that renders it"):
        render(CHATML)


def test_ctrl_c_leaves_no_answer_behind() -> None:
    slow = "{% for i in range(99999) %}{% for j in range(200) %}{% endfor %}{% endfor %}late"
    pid = worker_pid()
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        render(slow)
    timer.join()
    assert gone(pid)
    assert render(CHATML).endswith("assistant\n")


def test_threads_get_their_own_answers() -> None:
    answers: dict[int, list[str]] = {}

    def work(number: int) -> None:
        rows = [[{"role": "user", "content": f"{number}.{row}"}] for row in range(300)]
        answers[number] = render_chat(
            "{{ messages[0].content }}", rows, add_generation_prompt=True, variables={}
        )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: [f"{number}.{row}" for row in range(300)] for number in range(6)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_gets_its_own_worker() -> None:
    script = """
import os, sys
from riyaz import template
def text(word):
    return template.render_chat("{{ messages[0].content }}", [[{"role": "user", "content": word}]],
                                add_generation_prompt=True, variables={})
def pid(): return template._worker._process.pid
assert text("before") == ["before"]
parents = pid()
template._worker._lock.acquire()          # as if another thread were rendering at this moment
child = os.fork()
if child == 0:
    same = text("child") == ["child"] and pid() != parents
    template._worker.stop()
    os._exit(0 if same else 1)
template._worker._lock.release()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert text("after") == ["after"] and pid() == parents
print(parents)
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert gone(int(result.stdout))


@pytest.mark.parametrize("ending", ["pass", "sys.exit(3)", "os._exit(0)", "os.kill(os.getpid(), 9)", "1 / 0"])
def test_no_worker_outlives_its_parent(ending: str) -> None:
    script = f"""
import os, sys
from riyaz import template
template.render_chat("x", [[{{"role": "user", "content": "x"}}]], add_generation_prompt=True, variables={{}})
print(template._worker._process.pid, flush=True)
{ending}
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert gone(int(result.stdout))


def test_a_looping_orphan_ends_by_itself() -> None:
    pytest.importorskip("resource")
    request = {"template": LOOPS[0], "conversations": [HELLO], "add_generation_prompt": True}
    request |= {"variables": {}, "output_limit": 100, "cpu_seconds": 0}
    command = [sys.executable, "-m", "riyaz.template_worker"]
    result = subprocess.run(
        command, input=json.dumps(request).encode() + b"\n", capture_output=True, timeout=60
    )
    assert result.returncode == -signal.SIGXCPU and result.stdout == b"ready\n"


def test_worker_imports_only_the_standard_library_and_jinja2() -> None:
    code = "import sys; old = set(sys.modules); import riyaz.template_worker; print(*set(sys.modules) - old)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    packages = {name.split(".")[0] for name in output.split()}
    assert packages - set(sys.stdlib_module_names) == {"riyaz", "jinja2", "markupsafe"}


def test_worker_can_open_no_file_even_outside_the_sandbox() -> None:
    pytest.importorskip("resource")
    code = "import os; from riyaz.template_worker import confine; confine(); os.open(os.devnull, os.O_RDONLY)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Too many open files" in result.stderr


def test_worker_sees_no_secret_of_the_environment_and_no_module_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jinja2.py").write_text("raise SystemExit('the working folder was imported')")
    (tmp_path / "json.py").write_text("raise SystemExit('the working folder was imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RIYAZ_TEST_KEY", "the-secret-word")
    template._worker.stop()
    pid = worker_pid()
    environment = Path(f"/proc/{pid}/environ")
    if environment.exists():
        assert b"PATH=" in environment.read_bytes() and b"the-secret-word" not in environment.read_bytes()


def test_worker_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    template._worker.stop()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RiyazError, match="does not start"):
        render(CHATML)
    monkeypatch.undo()
    assert render(CHATML).endswith("assistant\n")
