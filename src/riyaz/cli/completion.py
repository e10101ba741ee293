"""`riyaz completion`: what a shell needs to complete commands and options with the Tab key."""

from typing import Annotated, Literal

from cyclopts import Parameter


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="the shell that will read the script")], /
) -> None:
    """Print the script that completes commands and options in bash, zsh or fish."""
    from riyaz.cli.main import build

    script = build().generate_completion(prog_name="riyaz", shell=shell)
    if shell == "bash":  # where the script knows no word, a file or folder may be meant, such as that of a model
        script = script.replace("complete -F ", "complete -o default -F ")
    print(script, end="")
