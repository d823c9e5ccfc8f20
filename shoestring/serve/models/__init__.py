"""The models of this process: planned before their weights are read, served, added and removed."""
