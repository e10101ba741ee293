"""Pure functions: scores of answers, confidence intervals of mean scores, tests of arms on the same rows."""
