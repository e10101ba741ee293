"""What answers: Requests in, tokens and log-probabilities out.

`request` is what is asked, and `engine` answers it over a `runner.Runner`, with `scheduler`, `sampling`, `trie` and
`search`; `opening` chooses the Runner. Only `engine/torch/` imports torch.
"""

from riyaz.engine.request import GREEDY, Request, Sampling, counted

__all__ = ["GREEDY", "Request", "Sampling", "counted"]
