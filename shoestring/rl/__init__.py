"""Reinforcement learning from verifiable rewards, rejection sampling and distillation."""
