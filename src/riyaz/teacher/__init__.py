"""The teacher of a distillation: a model of ours or an endpoint over HTTP, and what it answers."""
