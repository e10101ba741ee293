"""The command line: one module per verb, imported when it is used; it parses, calls the library, prints."""
