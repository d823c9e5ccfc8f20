import pytest

from shoestring.serve.translate.plain import read_plain

TEXT = """# A title

- one item
  1. another one
> said she
\tindented \r
00:00:01,000 --> 00:00:02,000
```python
x = "not prose"
```
the end"""


def test_words_are_units_and_all_else_stays():
    layout = read_plain(TEXT)
    texts = [unit.text for unit in layout.units]
    assert texts == ["A title", "one item", "another one", "said she", "indented", "the end"]
    assert layout.render(texts) == TEXT
    assert layout.render(["X"] * 6).startswith("# X\n\n- X\n  1. X\n> X\n\tX \r\n00:00:01")


@pytest.mark.parametrize(
    "text", ["", "\n", "-5 degrees", "*bold* words", "a\x0bb\x85c", "~~~\nopen", "1. 2. 3"]
)
def test_any_text_comes_out_as_it_went_in(text):
    layout = read_plain(text)
    assert layout.render([unit.text for unit in layout.units]) == text


def test_lines_of_a_paragraph_can_be_one_unit():
    assert [u.text for u in read_plain("One\n  sentence.\n\nAnother\none.", joins_lines=True).units] == [
        "One sentence.",
        "Another one.",
    ]
