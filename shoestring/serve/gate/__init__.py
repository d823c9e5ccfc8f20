"""The gate of registration: how hard it is to open an account, by what is measured, and the log of it."""
