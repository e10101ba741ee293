"""The HTTP server: models, adapters and artifacts behind OpenAI's interface.

Handlers (`chat`, `completions`, …) check what was asked by the tables of `fields`, prepare prompts in one thread and
hand requests to `engine_thread`, the only one that touches an engine. What an answer is made of comes back as events.
"""
