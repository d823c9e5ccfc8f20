"""A service takes its database for itself, and makes the tables of a new one."""

import asyncio

import pytest

from shoestring.errors import ConfigError
from shoestring.serve.config import ServiceConfig
from shoestring.serve.hosting import database_url, open_hosting
from shoestring.serve.storage.migrate import check_revision


def test_a_second_service_on_one_file_is_refused(tmp_path):
    config = ServiceConfig(data=str(tmp_path / "data"))

    async def main():
        first = open_hosting(config, "http://x", {})
        await first.start()
        with pytest.raises(ConfigError, match=r"uses .*service.db; end it first"):
            open_hosting(config, "http://x", {})
        await first.stop()
        await open_hosting(config, "http://x", {}).stop()

    asyncio.run(main())
    check_revision(database_url(config))
