"""The record of a run: metrics, terminal, curves, energy, receipt and web page."""
