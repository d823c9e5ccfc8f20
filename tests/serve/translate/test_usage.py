from shoestring.serve.translate.usage import add_usage, usage_of


def test_characters_add_up_by_month(connection, monkeypatch):
    add_usage(connection, "ada", 5)
    add_usage(connection, "ada", 7, documents=1)
    add_usage(connection, "bob", 1)
    assert usage_of(connection, "ada") == (12, 1)
    monkeypatch.setattr("shoestring.serve.translate.usage.month", lambda: "1970-01")
    assert usage_of(connection, "ada") == (0, 0)
