"""ASVS 5.0 in docs/security.md: every row of levels 1 and 2 once, each with its test or its reason."""

import ast
import re

import pytest

ROWS = """1.1:1-2 1.2:1-9 1.3:1-11 1.4:1-3 1.5:1-2 2.1:1-3 2.2:1-3 2.3:1-4 2.4:1 3.2:1-2 3.3:1-4 3.4:1-6
3.5:1-5 3.7:1-2 4.1:1-3 4.2:1 4.3:1-2 4.4:1-4 5.1:1 5.2:1-3 5.3:1-2 5.4:1-3 6.1:1-3 6.2:1-12 6.3:1-4 6.4:1-4
6.5:1-5 6.6:1-3 6.8:1-4 7.1:1-3 7.2:1-4 7.3:1-2 7.4:1-5 7.5:1-2 7.6:1-2 8.1:1-2 8.2:1-3 8.3:1 8.4:1 9.1:1-3
9.2:1-4 10.1:1-2 10.2:1-2 10.3:1-4 10.4:1-11 10.5:1-5 10.6:1-2 10.7:1-3 11.1:1-2 11.2:1-3 11.3:1-3 11.4:1-4
11.5:1 11.6:1 12.1:1-3 12.2:1-2 12.3:1-4 13.1:1 13.2:1-5 13.3:1-2 13.4:1-5 14.1:1-2 14.2:1-4 14.3:1-3 15.1:1-3
15.2:1-3 15.3:1-7 16.1:1 16.2:1-5 16.3:1-4 16.4:1-3 16.5:1-3 17.1:1 17.2:1-4 17.3:1-2"""
NUM_LEVEL_1 = 70


@pytest.fixture(scope="module")
def page(root) -> str:
    return (root / "docs" / "security.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows(page) -> list[list[str]]:
    """The cells of each row: id, level, subject, state, place, evidence."""
    lines = [line for line in page.splitlines() if re.match(r"\| \d+\.\d+\.\d+ \|", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_row_of_levels_1_and_2_is_there_once(rows):
    sections = [part.partition(":")[::2] for part in ROWS.split()]
    ranges = [(section, numbers.partition("-")) for section, numbers in sections]
    ids = [
        f"{name}.{number}"
        for name, (low, _, high) in ranges
        for number in range(int(low), int(high or low) + 1)
    ]
    assert [row[0] for row in rows] == ids
    assert len(ids) == 253
    assert [row[1] for row in rows].count("1") == NUM_LEVEL_1
    assert {row[1] for row in rows} == {"1", "2"}


def test_a_row_that_is_met_names_a_test_or_a_section_and_others_a_reason(rows, page, root):
    tests, anchors = {}, set(re.findall(r"^## (.+)$", page, re.MULTILINE))
    sections = {anchor.lower().replace(" ", "-") for anchor in anchors}
    for number, _, subject, state, place, evidence in rows:
        assert subject, number
        if state != "met":
            assert state in ("not applicable", "open"), number
            assert len(evidence) > 5, number
        elif evidence.startswith("["):
            assert evidence.partition("(#")[2].rstrip(")") in sections, number
        else:
            path, _, name = evidence.strip("`").partition("::")
            if path not in tests:
                tree = ast.parse((root / path).read_text(encoding="utf-8"))
                tests[path] = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert place, number
            assert name.startswith("test_"), number
            assert name in tests[path], number
    assert len(tests) > 20
