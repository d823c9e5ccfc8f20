from shoestring.tokenizer import special


def test_spellings_are_deepseek_s_own_characters():
    bars = [token for token in special.SPECIAL_TOKENS if token not in special.THINK_TAGS]
    assert all(token.startswith("<\uff5c") and token.endswith("\uff5c>") for token in bars)
    assert special.BOS == "<\uff5cbegin\u2581of\u2581sentence\uff5c>"
    assert not any("|" in token or " " in token or "_" in token for token in special.SPECIAL_TOKENS)


def test_no_spelling_twice():
    assert len(set(special.SPECIAL_TOKENS)) == len(special.SPECIAL_TOKENS)
