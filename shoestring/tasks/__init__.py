"""Problems whose answers can be checked, and the checking: text in, a number or no verdict out."""
