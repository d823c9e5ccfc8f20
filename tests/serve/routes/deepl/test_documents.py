import time

from tests.serve.translate.office_files import docx

FIELDS = {"source_lang": "EN", "target_lang": "DE"}


def upload(client, name, data, **fields):
    return client.post("/v2/document", data={**FIELDS, **fields}, files={"file": (name, data)})


def finished(client, handle):
    """The state of a document when it is no longer under translation."""
    path, key = f"/v2/document/{handle['document_id']}", {"document_key": handle["document_key"]}
    for _ in range(100):
        state = client.post(path, json=key).json()
        if state["status"] in ("done", "error"):
            return state
        time.sleep(0.05)
    raise AssertionError(state)


def result(client, handle):
    path = f"/v2/document/{handle['document_id']}/result"
    return client.post(path, json={"document_key": handle["document_key"]})


def test_a_document_is_translated_and_fetched_once(deepl, stranger):
    handle = upload(deepl, "a b.txt", b"A proton beam.\n\n- proton beam\n").json()
    state = finished(deepl, handle)
    assert (state["status"], state["billed_characters"]) == ("done", 30)
    assert result(stranger, handle).status_code == 404
    assert result(deepl, {**handle, "document_key": "0" * 64}).status_code == 404
    reply = result(deepl, handle)
    assert reply.text == "A Protonenstrahl.\n\n- Protonenstrahl\n"
    assert reply.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20b.txt"
    assert result(deepl, handle).status_code == 404
    assert deepl.get("/v2/usage").json()["document_count"] == 1


def test_other_formats(deepl):
    handle = upload(deepl, "a.HTML", b"<p>A <i>proton beam</i></p>").json()
    assert finished(deepl, handle)["status"] == "done"
    assert result(deepl, handle).text == "<p>A <i>Protonenstrahl</i></p>"
    handle = upload(deepl, "x", docx(["A proton beam"]), filename="a.docx").json()
    assert finished(deepl, handle)["status"] == "done"
    assert result(deepl, handle).content.startswith(b"PK")


def test_what_cannot_be_translated(deepl):
    for name, data, words in (
        ("a.pdf", b"%PDF", "Invalid file extension"),
        ("a", b"x y", "Invalid file extension"),
        ("a.docx", b"PK", "Invalid file"),
        ("a.txt", b" 1 2 3", "no text"),
    ):
        reply = upload(deepl, name, data)
        assert reply.status_code == 400
        assert words in reply.json()["message"]
    assert "output_format" in upload(deepl, "a.txt", b"x y", output_format="pdf").json()["message"]
    assert upload(deepl, "a.txt", b"x" * (11 << 20)).status_code == 413
    assert deepl.post("/v2/document", data=FIELDS).status_code == 400


def test_a_document_in_the_target_language_is_an_error(deepl):
    reply = deepl.post(
        "/v2/document", data={"target_lang": "DE"}, files={"file": ("a.txt", b"Protonenstrahl")}
    )
    state = finished(deepl, reply.json())
    assert state["status"] == "error"
    assert "Source and target language" in state["error_message"]
    assert result(deepl, reply.json()).status_code == 400
