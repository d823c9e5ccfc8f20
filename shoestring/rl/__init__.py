"""Reinforcement learning from verifiable rewards, and recipes of several stages."""
