"""The ledger: prices, what is held and charged for a request, balances, caps and usage by day."""
