import pytest


def create(client, path="/v1/completions", **fields):
    body = {"model": "mini", "prompt": "2+3=", "max_tokens": 12, "temperature": 0, **fields}
    return client.post(path, json=body)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 2},
        {"prompt": ["2+3=", "4*5=", "1"]},
        {"prompt": ["2+3=", "4*5="], "n": 2, "logprobs": 2},
        {"prompt": [60, 70, 80]},
        {"prompt": [[60, 70], [80]]},
        {"stop": "5", "max_tokens": 30},
        {"suffix": " = 5"},
    ],
)
def test_the_whole_completion_is_the_fold_of_the_stream(client, events, fields):
    whole = create(client, **fields).json()
    *chunks, last, done = events(
        create(client, **fields, stream=True, stream_options={"include_usage": True}).text
    )
    assert done == "[DONE]"
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    texts, reasons, tokens = {}, {}, {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        index = choice["index"]
        texts[index] = texts.get(index, "") + choice["text"]
        reasons[index] = choice["finish_reason"]
        logprobs = choice["logprobs"] or {"tokens": [], "text_offset": []}
        tokens.setdefault(index, []).extend(zip(logprobs["tokens"], logprobs["text_offset"], strict=True))
    assert [texts[index] for index in sorted(texts)] == [choice["text"] for choice in whole["choices"]]
    assert [reasons[index] for index in sorted(texts)] == [
        choice["finish_reason"] for choice in whole["choices"]
    ]
    if "logprobs" in fields:
        for choice in whole["choices"]:
            logprobs = choice["logprobs"]
            assert (
                list(zip(logprobs["tokens"], logprobs["text_offset"], strict=True)) == tokens[choice["index"]]
            )
            assert all(len(top) == 2 for top in logprobs["top_logprobs"])


def test_a_text_keeps_its_tags(client):
    prompt = "Use 3, 5, 7 to make 22."
    body = {"prompt": prompt, "max_tokens": 40, "ignore_eos": True, "logit_bias": {"5": 100}}
    assert create(client, **body).json()["choices"][0]["text"].startswith("<think>")


def test_deepseek_has_the_usage_on_the_last_choice(client, events):
    for path in ("/completions", "/beta/completions"):
        *chunks, done = events(create(client, path, n=2, stream=True).text)
        assert done == "[DONE]"
        assert ["usage" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert chunks[-1]["choices"][0]["finish_reason"] is not None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [10**9]}, "token id"),
        ({"prompt": None}, "prompt"),
        ({"best_of": 3}, "best_of is not supported"),
        ({"suffix": "x", "prompt": [1, 2]}, "text prompt"),
    ],
)
def test_a_wrong_request_is_one_sentence(client, fields, words):
    reply = create(client, **fields)
    assert reply.status_code == 400
    assert words in reply.json()["error"]["message"]


def test_tokens_come_and_go(client):
    tokens = client.post("/tokenize", json={"model": "mini", "prompt": "Use 3, 5"}).json()
    assert tokens["count"] == len(tokens["tokens"]) > 3
    text = client.post("/detokenize", json={"model": "mini", "tokens": tokens["tokens"][1:]}).json()
    assert text == {"prompt": "Use 3, 5", "content": "Use 3, 5"}
    for fields in ({"content": "Use 3, 5"}, {"prompt": "Use 3, 5", "add_special_tokens": False}):
        rest = client.post("/tokenize", json={"model": "mini", **fields}).json()["tokens"]
        assert rest == tokens["tokens"][1:]
    named = {"model": "mini", "content": "Use 3, 5", "add_special": True}
    assert client.post("/tokenize", json=named).json() == tokens
    messages = [{"role": "user", "content": "Use 3, 5"}]
    assert (
        client.post("/tokenize", json={"model": "mini", "messages": messages}).json()["count"]
        > tokens["count"]
    )
    assert client.post("/tokenize", json={"model": "mini"}).status_code == 400
