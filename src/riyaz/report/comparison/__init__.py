"""The report of a comparison: terminal, Markdown and one page of HTML."""
