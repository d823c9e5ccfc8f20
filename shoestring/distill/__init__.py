"""A teacher's verified answers, or its probabilities, into a student."""
