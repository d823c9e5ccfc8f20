"""The page that git keeps is what ui/ makes."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import page


def test_the_page_was_built_from_these_sources():
    assert (page.BUILT / page.STAMP).read_text().strip() == page.stamp(), "run python3 tools/page.py"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node")
def test_a_fresh_build_is_the_same_to_the_byte(tmp_path):
    page.build(tmp_path)
    assert page.differences(tmp_path) == []


def test_a_difference_is_seen(tmp_path):
    for path in page.BUILT.iterdir():
        shutil.copy(path, tmp_path)
    assert page.differences(tmp_path) == []
    (tmp_path / "app.css").write_text("other")
    (tmp_path / "new.js").write_text("new")
    assert page.differences(tmp_path) == ["app.css", "new.js"]
