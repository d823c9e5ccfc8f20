"""Training in 8 and 4 bits as DeepSeek does it, computed with values rounded to those formats."""
