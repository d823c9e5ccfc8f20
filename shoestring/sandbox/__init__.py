"""Model-written programs, run within limits in a process of their own that is tested before it is trusted."""
