"""Values of answers: LaTeX or plain text, read into a tree, computed exactly, and compared."""
