"""Workers of a comparison that are spoiled: one is killed as it begins, or stands still in the middle of its training.

Every Python that starts with the environment of `spoiled` reads CODE. WHERE says which worker is meant (`fit-lora`),
ACT what happens to it: `kill`, or `hold`, which happens to one worker alone.
"""

import os
from pathlib import Path

CODE = """
import os, signal, sys
name, *work = sys.orig_argv[sys.orig_argv.index("-m") + 1 :] if "-m" in sys.orig_argv else [""]
if name == "riyaz.comparison.worker" and len(work) > 2 and f"{work[0]}-{work[2]}" == os.environ.get("WHERE"):
    if os.environ["ACT"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    from dataclasses import replace
    from riyaz.events import Progress
    from riyaz.methods import METHODS
    lora = METHODS["lora"]
    def fit(context):
        def listen(event):
            context.listen(event)
            if isinstance(event, Progress) and event.phase == "train" and event.done >= 2:
                try:
                    os.rename(os.environ["HOLD"], os.environ["HOLD"] + "-held")
                except FileNotFoundError:
                    return  # another one stands still already
                while True:
                    signal.pause()
        return lora.fit(replace(context, listen=listen))
    METHODS["lora"] = replace(lora, fit=fit)
"""


def spoiled(folder: Path, where: str, act: str) -> dict[str, str]:
    """The environment in which a worker is spoiled; `folder` gets CODE, and a file `hold` that the held one renames."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CODE)
    (folder / "hold").touch()
    path = os.pathsep.join(part for part in (str(folder), os.environ.get("PYTHONPATH", "")) if part)
    return {"PYTHONPATH": path, "WHERE": where, "ACT": act, "HOLD": str(folder / "hold")}


def is_held(folder: Path) -> bool:
    """Whether a worker stands still."""
    return (folder / "hold-held").exists()
