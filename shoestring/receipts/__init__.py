"""Receipts of finished runs: read, verified, and written as a bill of materials or a model card."""
