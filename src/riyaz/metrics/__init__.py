"""Scores of answers, intervals of mean scores, and comparisons of arms on the same rows: pure functions."""
