from hypothesis import given
from hypothesis import strategies as st

from shoestring.serve.backends.local import joined
from shoestring.tokenizer.chat.reply import ToolPiece
from shoestring.tokenizer.stream import TextPiece

TEXTS = st.builds(TextPiece, text=st.text(max_size=3), kind=st.sampled_from(("thinking", "answer")))
PIECES = st.lists(
    st.one_of(TEXTS, st.builds(ToolPiece, index=st.integers(0, 1), arguments=st.text(max_size=2)))
)


def kinds(pieces):
    return [piece.kind if isinstance(piece, TextPiece) else piece for piece in pieces]


def texts(pieces):
    return [(piece.kind, char) for piece in pieces if isinstance(piece, TextPiece) for char in piece.text]


@given(PIECES)
def test_pieces_of_one_kind_are_one_piece_and_nothing_changes_its_place(pieces):
    result = list(joined(pieces))
    assert texts(result) == texts(pieces)
    assert [each for each in result if isinstance(each, ToolPiece)] == [
        each for each in pieces if isinstance(each, ToolPiece)
    ]
    pairs = zip(kinds(result), kinds(result)[1:], strict=False)
    assert all(first != second or isinstance(first, ToolPiece) for first, second in pairs)
