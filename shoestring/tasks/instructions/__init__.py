"""Instructions that a program can check: the 25 of IFEval (arXiv 2311.07911, table 1)."""
