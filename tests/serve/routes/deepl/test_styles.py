STYLE = {"name": "s", "language": "de", "configured_rules": {"numbers": {"decimals": "use_comma"}}}


def test_a_style_rule_lives_and_is_used(deepl, stranger, book):
    style = deepl.post("/v3/style_rules", json=STYLE).json()
    path = f"/v3/style_rules/{style['style_id']}"
    instruction = deepl.post(
        f"{path}/custom_instructions", json={"label": "l", "prompt": "Write like a pirate."}
    )
    assert instruction.status_code == 201
    own = f"{path}/custom_instructions/{instruction.json()['id']}"
    assert deepl.get(own).json() == instruction.json()
    body = {"text": "x y", "source_lang": "EN", "target_lang": "DE", "style_id": style["style_id"]}
    assert deepl.post("/v2/translate", json=body).status_code == 200
    words = book.requests[-1].messages[0]["content"]
    assert "decimals: use comma." in words
    assert "Write like a pirate." in words
    assert deepl.put(own, json={"label": "m", "prompt": "p"}).json()["label"] == "m"
    assert deepl.delete(own).status_code == 204
    assert deepl.get(own).status_code == 404
    assert deepl.patch(path, json={"name": "t"}).json()["name"] == "t"
    rules = deepl.put(f"{path}/configured_rules", json={}).json()
    assert (rules["configured_rules"], rules["custom_instructions"], rules["version"]) == ({}, [], 6)
    assert stranger.get(path).status_code == 404
    assert stranger.get("/v3/style_rules").json() == {"style_rules": []}
    (listed,) = deepl.get("/v3/style_rules?page=0&page_size=5").json()["style_rules"]
    assert "configured_rules" not in listed
    assert deepl.delete(path).status_code == 204
    assert deepl.post("/v2/translate", json=body).status_code == 404


def test_wrong_rules_are_refused(deepl):
    for wrong in (
        {"language": "xx"},
        {"name": ""},
        {"configured_rules": {"a": 3}},
        {"custom_instructions": [{"label": "l"}]},
        {"custom_instructions": 3},
    ):
        assert deepl.post("/v3/style_rules", json={**STYLE, **wrong}).status_code == 400
