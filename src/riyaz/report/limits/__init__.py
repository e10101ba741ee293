"""What a model cannot do, as terminal text, Markdown and HTML."""
