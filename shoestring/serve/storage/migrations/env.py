"""The environment that Alembic runs migrations in: a connection whose transaction is already open."""

from alembic import context

from shoestring.serve.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,  # SQLite cannot change a column in place
)
context.run_migrations()
