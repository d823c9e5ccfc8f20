"""Constrained output: JSON schema, regex, choice and tool grammars become token masks."""
