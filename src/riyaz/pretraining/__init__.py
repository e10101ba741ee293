"""Pretraining: from text and random weights to a model, with the one training loop of `train.py`.

`shapes` says how large a model is, `speed` what this machine does in a second, `plan` derives every number from one of
size and budget and says why, `samples` shows what the model writes meanwhile, `run` does it all in a folder that a
killed command leaves so that `--resume` goes on with it.
"""
