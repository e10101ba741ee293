"""Help pages as plain text in two aligned columns."""

import dataclasses
import textwrap
from typing import Any

GAP = 2
LABELS = 26  # widest label beside its text; a wider one has its own line
SHORT = ("compare", "adapt", "pretrain", "serve")  # verbs whose --help shows the common options, --help all the rest


class Formatter:
    """The help formatter that cyclopts calls; given a verb of SHORT, it leaves out the rare options."""

    def __init__(self, verb: str = "") -> None:
        self.verb = verb

    def render_usage(self, console: Any, options: Any, usage: Any) -> None:
        """Prints the usage line."""
        _write(console, f"Usage: {_plain(usage)}\n")

    def render_description(self, console: Any, options: Any, description: Any) -> None:
        """Prints the description of the command, and where the rest of its options is."""
        text = _plain(description)
        if self.verb:
            text += f"\n\nThese are the common options; riyaz {self.verb} --help all shows all of them."
        if text:
            _write(console, f"{text}\n")

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        """Prints one group of commands, arguments or options."""
        hidden = rare(self.verb) if self.verb else set()
        rows = [(label(entry), explanation(entry)) for entry in panel.entries if hidden.isdisjoint(entry.names)]
        if not rows:
            return
        width = min(max(len(name) for name, _ in rows), LABELS)
        indent = " " * (2 * GAP + width)
        lines = [f"{panel.title}:"]
        for name, text in rows:
            wrapped = textwrap.wrap(text, max(console.width - len(indent), 30)) or [""]
            if len(name) > width:
                lines.append(" " * GAP + name)
            else:
                lines.append(f"{' ' * GAP}{name:<{width}}{' ' * GAP}{wrapped.pop(0)}".rstrip())
            lines += [indent + line for line in wrapped]
        _write(console, "\n".join(lines) + "\n")


def rare(verb: str) -> set[str]:
    """The flags of a verb of SHORT whose field in `config/` is not marked `common`."""
    # `riyaz --help` needs none
    from riyaz.config import AdaptConfig, CompareConfig, DataConfig, PretrainConfig, ServeConfig
    from riyaz.config.option import flag_of

    configs: dict[str, list[type[Any]]] = {
        "pretrain": [PretrainConfig], "serve": [ServeConfig], "adapt": [AdaptConfig, CompareConfig, DataConfig],
    }  # fmt: skip
    shown = configs.get(verb, [CompareConfig, DataConfig])
    options = [option for config in shown for option in dataclasses.fields(config)]
    return {flag_of(option.name) for option in options if not option.metadata["common"]}


def label(entry: Any) -> str:
    """The left column: the name of a command, argument or option, `--budget SECONDS`."""
    if entry.positional_label:
        return str(entry.positional_label)
    return ", ".join(entry.display_labels_with_metavar)


def explanation(entry: Any) -> str:
    """The right column: help text, then the choices and the default in brackets."""
    text = _plain(entry.description)
    if entry.choices:
        text += f" [{'|'.join(entry.choices)}]"
    if entry.default not in (None, "None", "False", "()", ""):
        text += f" [default: {entry.default}]"
    return text.strip()


def _plain(text: Any) -> str:
    """The plain text of a rich Text or of cyclopts' wrapper around one."""
    text = getattr(text, "primary_renderable", text)
    return str(getattr(text, "plain", text) or "").strip()


def _write(console: Any, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
