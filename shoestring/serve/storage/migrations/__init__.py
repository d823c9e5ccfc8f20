"""Migrations of the tables, one file for each revision; Alembic runs them."""
