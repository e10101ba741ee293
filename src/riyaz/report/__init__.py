"""Reports for people: terminal, Markdown and HTML, made only from the typed results of `riyaz.results`."""
