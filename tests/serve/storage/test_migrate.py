"""Migrations reach the tables of the code, all or nothing; another revision is refused with the way out."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from shoestring.errors import ConfigError
from shoestring.serve.storage import migrate as module
from shoestring.serve.storage.engines import checked_url, sqlite_file, sqlite_url, writing_engine
from shoestring.serve.storage.migrate import check_revision, latest_revision, migrate, revision
from shoestring.serve.storage.tables import metadata


def test_migrations_make_the_tables_of_the_code(empty_url):
    assert migrate(empty_url) == (None, latest_revision())
    assert migrate(empty_url) == (latest_revision(), latest_revision())
    check_revision(empty_url)
    engine = writing_engine(empty_url)
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_a_database_without_tables_is_refused_with_the_command(empty_url):
    with pytest.raises(ConfigError, match="run `shoestring database migrate"):
        check_revision(empty_url)


def test_a_newer_database_is_refused(empty_url):
    migrate(empty_url)
    engine = writing_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    for call in (migrate, check_revision):
        with pytest.raises(ConfigError, match="newer than this version"):
            call(empty_url)


def test_a_migration_that_fails_leaves_nothing_behind(empty_url, monkeypatch):
    def upgrade(config, target):
        config.attributes["connection"].execute(text("CREATE TABLE half (id INTEGER)"))
        raise ConfigError("half way")

    monkeypatch.setattr(module.command, "upgrade", upgrade)
    with pytest.raises(ConfigError, match="half way"):
        migrate(empty_url)
    assert revision(empty_url) is None
    engine = writing_engine(empty_url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


def test_a_new_database_is_its_owners_alone(tmp_path):
    file = tmp_path / "new" / "service.db"
    migrate(sqlite_url(file))
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with pytest.raises(ConfigError, match="cannot make the database"):
        migrate(sqlite_url(file / "below"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://a/b", "not supported"),
        ("sqlite://", "not supported"),
        ("nonsense", "wrong form"),
        ("postgresql://user:secret@127.0.0.1:9/x", "cannot be used"),
    ],
)
def test_a_wrong_url_is_one_sentence_without_the_password(url, words):
    with pytest.raises(ConfigError, match=words) as caught:
        migrate(url)
    assert "secret" not in str(caught.value)


def test_urls_of_both_kinds():
    assert str(sqlite_file("sqlite:///a/b.db")) == "a/b.db"
    assert sqlite_file("postgresql://a/b") is None
    assert checked_url("postgresql://a/b").drivername == "postgresql+psycopg"
