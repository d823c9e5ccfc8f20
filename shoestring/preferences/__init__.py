"""Learning from preferences: a policy from pairs of answers or single judgements, and reward models."""
