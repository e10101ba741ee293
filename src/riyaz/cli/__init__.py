"""The command line: one module per verb, imported on use; it parses arguments, calls the library and prints."""
