"""A file goes in as it is, and its text comes out; what is too long or no text is refused."""

from shoestring.serve.routes.page import attachments
from tests.serve.chats.pdfs import TEXT, pdf


def test_a_file_gives_its_text(file_site):
    ada = file_site.person()
    reply = ada.post("/attachments?name=a.py", content="print('ü')".encode())
    assert reply.json() == {"name": "a.py", "text": "print('ü')", "num_pages": None, "is_cut": False}
    reply = ada.post("/attachments?name=a.pdf", content=pdf(TEXT % b"one", TEXT % b"two"))
    assert reply.json() == {"name": "a.pdf", "text": "one\n\ntwo", "num_pages": 2, "is_cut": False}


def test_what_cannot_be_read_is_refused(file_site, monkeypatch):
    ada = file_site.person()
    assert ada.post("/attachments?name=a", content=b"").status_code == 400
    assert ada.post("/attachments?name=", content=b"a").status_code == 400
    assert ada.post("/attachments", content=b"a").status_code == 400
    assert ada.post("/attachments?name=a.zip", content=b"PK\x03\x04\x00\x00").status_code == 400
    monkeypatch.setattr(attachments, "MAX_FILE_BYTES", 10)
    assert ada.post("/attachments?name=a", content=b"a" * 10).status_code == 200
    assert ada.post("/attachments?name=a", content=b"a" * 11).status_code == 413
    assert file_site.browser().post("/attachments?name=a", content=b"a").status_code == 401
    other_site = {"sec-fetch-site": "cross-site"}
    assert ada.post("/attachments?name=a", content=b"a", headers=other_site).status_code == 403
