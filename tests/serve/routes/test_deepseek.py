SUM = [{"role": "user", "content": "Use 3, 5, 7 to make 22."}]


def test_the_usage_of_a_stream_is_on_its_last_choice(client, events):
    body = {"model": "deepseek-chat", "messages": SUM, "max_tokens": 5, "stream": True}
    for path in ("/chat/completions", "/beta/chat/completions"):
        *chunks, done = events(client.post(path, json=body).text)
        assert done == "[DONE]"
        assert all(chunk["choices"] for chunk in chunks)
        assert [chunk for chunk in chunks if chunk.get("usage")] == chunks[-1:]
        usage = chunks[-1]["usage"]
        assert usage["prompt_cache_hit_tokens"] + usage["prompt_cache_miss_tokens"] == usage["prompt_tokens"]
        asked = client.post(path, json={**body, "stream_options": {"include_usage": True}}).text
        *chunks, _ = events(asked)
        assert all(chunk["choices"] for chunk in chunks)
        assert all(chunk["usage"] is None for chunk in chunks[:-1])


def test_every_dialect_answers_under_deepseeks_paths(client):
    assert client.get("/models").json() == client.get("/v1/models").json()
    message = {"model": "mini", "messages": SUM, "max_tokens": 3}
    assert client.post("/anthropic/v1/messages", json=message).json()["type"] == "message"
    assert client.post("/anthropic/v1/messages/count_tokens", json=message).json()["input_tokens"] > 5
    assert client.post("/responses", json={"model": "mini", "input": "hi"}).json()["object"] == "response"
    error = client.post("/anthropic/v1/messages", json={"model": "none", "messages": SUM, "max_tokens": 3})
    assert error.json()["type"] == "error"
