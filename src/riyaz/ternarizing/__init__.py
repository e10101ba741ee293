"""Ternarizing: from a full-precision model and text to a ternary model, in a run like those of `pretraining`.

`material` holds what the ternary model learns from, `distillation` its training, and `run` does everything in a folder
from which `--resume` continues after a kill.
"""
