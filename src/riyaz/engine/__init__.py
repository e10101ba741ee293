"""The inference engine: Requests in, tokens and log-probabilities out.

`engine` answers a `request` over a `runner.Runner`, with `scheduler`, `sampling`, `trie` and `search`; `opening` opens
an engine on a model's files. Only `engine/torch/` imports torch.
"""

from riyaz.engine.request import GREEDY, Request, Sampling, counted

__all__ = ["GREEDY", "Request", "Sampling", "counted"]
