"""The report of a pretraining run: terminal and one page of HTML."""
