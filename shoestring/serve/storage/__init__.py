"""Storage of the service: a SQLite file or PostgreSQL, with its tables, migrations and backups."""
