import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.translate.formats import FORMATS, MEDIA_TYPES, format_of, read_document, write_document


def test_formats_are_endings_of_names():
    assert format_of("a.b.TXT") == "txt"
    assert set(MEDIA_TYPES) == set(FORMATS)
    for name in ("a.pdf", "txt", "a.", ""):
        with pytest.raises(RequestError, match="Invalid file extension"):
            format_of(name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_text_in_several_encodings(encoding):
    document = read_document("Größe zählt\n".encode(encoding), "txt")
    assert document.layout.units[0].text == "Größe zählt"
    assert document.num_characters == 12
    assert write_document(document, ["x"]) == b"x\n"
