"""What is wrong with the rows of a closed set: labels that are probably wrong, near-duplicates, labels mixed up.

`examine.examine` looks at the rows and returns plain values of `results/problems.py`; `label_next.label_next` names the
unlabelled rows that a label would help most. No language model runs: prompts are vectors of their terms and, where the
embedder is pulled, of their meaning (`features`), and a logistic regression says which label they suggest (`held_out`).
"""
