"""Values of answers: found in a text, read from LaTeX or plain text, computed exactly, and compared."""
