"""The text of files is found whatever their encoding; what is no text, or does harm, is refused."""

import asyncio
import io
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.chats import pdf as pdf_module
from shoestring.serve.chats.attachments import MAX_TEXT_BYTES, Attachments, file_text
from tests.serve.chats.pdfs import TEXT, bomb, pdf, stream, twice_packed_bomb

WORDS = "Grüße, 你好, naïve 😀\nzwei"


def read(data, name="notes.txt"):
    return asyncio.run(Attachments().read("ada", name, data))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_text_in_unicode_is_read(encoding):
    text = "Hello to all of you, and " + WORDS
    assert read(text.encode(encoding)).text == text


def test_text_of_old_windows_is_read_with_its_lines():
    found = read("Größe „5“ – naïve\r\nzwei".encode("cp1252"), "alt.txt")
    assert (found.text, found.num_pages, found.is_cut) == ("Größe „5“ – naïve\nzwei", None, False)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_any_text_in_utf_8_is_read(text):
    assert file_text(text.encode()) == text.removeprefix("\ufeff")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_are_an_error(data):
    text = file_text(data)
    assert text is None or "\0" not in text


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00" + bytes(range(256)),
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00",
        b"\x7fELF\x02\x01\x01" + b"\x00" * 40,
        bytes(range(1, 32)) * 10,
    ],
)
def test_what_is_no_text_is_refused_with_the_way_out(data):
    with pytest.raises(RequestError, match=r"notes.docx is neither text nor a PDF; save it"):
        read(data, "notes.docx")


def test_a_long_text_is_cut_between_characters():
    found = read(("é" * MAX_TEXT_BYTES).encode())
    assert (found.text, found.is_cut) == ("é" * (MAX_TEXT_BYTES // 2), True)


def test_the_text_of_a_pdf_is_read():
    found = read(pdf(TEXT % b"Caf\xe9", TEXT % b"second page"), "a.pdf")
    assert (found.text, found.num_pages, found.is_cut) == ("Café\n\nsecond page", 2, False)


def encrypted(password):
    """A PDF that only opens with a password, or with none."""
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(TEXT % b"secret"))))
    writer.encrypt(password, "owner", algorithm="RC4-128")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def test_a_pdf_that_opens_without_a_password_is_read():
    assert read(encrypted("")).text == "secret"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: encrypted("word"), "it has a password"),
        (lambda: pdf(b"q 10 0 0 10 0 0 cm /Im1 Do Q"), "its pages are images"),
        (lambda: b"%PDF-1.7\nnothing", "it is damaged"),
        (lambda: b"%PDF-", "it is damaged"),
        (lambda: pdf(bomb(200 << 20)), "too much memory"),
        (lambda: pdf(twice_packed_bomb(200 << 20)), "too much memory"),
        (lambda: pdf(TEXT % b"a").replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]"), "it is damaged"),  # a circle
        (lambda: pdf(TEXT % b"a")[:300], "it is damaged"),
    ],
)
def test_hostile_and_odd_pdfs_are_refused_in_a_sentence(make, sentence):
    with pytest.raises(RequestError, match=sentence):
        read(make(), "a.pdf")


@pytest.mark.parametrize(
    ("part", "lie"),
    [
        (b"/Count 1", b"/Count 999999999"),
        (b"/Parent 2 0 R", b"/Parent 4 0 R"),
        (b"startxref\n", b"startxref\n99"),
    ],
)
def test_a_pdf_that_lies_about_its_form_is_read_as_it_is(part, lie):
    assert read(pdf(TEXT % b"a").replace(part, lie), "a.pdf").text == "a"


def test_a_pdf_that_takes_too_long_is_ended(monkeypatch):
    monkeypatch.setattr(pdf_module, "LIMIT_S", 1.0)
    form = b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X1 %d 0 R >> >>"
    many = b"/X1 Do " * 200
    more = [stream(many, form % (7 + number)) for number in range(8)]  # each draws the next one 200 times
    fonts, forms = b"<< /Font << /F1 3 0 R >> >>", b"<< /XObject << /X1 6 0 R >> >>"
    data = pdf(b"/X1 Do", more=more).replace(fonts, forms)
    begin_s = time.monotonic()
    with pytest.raises(RequestError, match="too long"):
        read(data, "a.pdf")
    assert time.monotonic() - begin_s < 10
