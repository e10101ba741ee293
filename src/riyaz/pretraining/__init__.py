"""Pretraining: from text and random weights to a model, with the one training loop of `train.py`.

`shapes` holds the model sizes, `speed` measures this machine, `plan` derives every setting from a size or a budget and
gives its reason, `samples` generates text during training, and `run` does everything in a folder from which `--resume`
continues after a kill. A run of `ternarizing` shares `folder`, `running`, `pace` and `speed`.
"""
