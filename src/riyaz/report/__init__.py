"""A result as people read it: pure functions over the documents of a comparison; knows no other module."""
