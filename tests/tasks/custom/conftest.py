"""Files of a user."""

from textwrap import dedent

import pytest


@pytest.fixture
def write(tmp_path):
    """Writes a file of a user and returns its path as text."""

    def make(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(dedent(text))
        return str(path)

    return make
