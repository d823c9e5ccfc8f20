"""Model-written programs run within limits, behind a boundary that is tried before it is trusted."""
