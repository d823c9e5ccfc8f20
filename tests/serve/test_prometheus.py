from prometheus_client.parser import text_string_to_metric_families

from shoestring.serve.prometheus import metrics_text

NAMES = {
    "vllm:num_requests_running",
    "vllm:generation_tokens",
    "vllm:time_to_first_token_seconds",
    "vllm:spec_decode_num_accepted_tokens_per_pos",
}


def test_the_page_is_read_as_prometheus_reads_it(new_engine):
    engines = {"a": new_engine(), "b": new_engine()}
    families = {
        family.name: family for family in text_string_to_metric_families(metrics_text(engines).decode())
    }
    assert families.keys() >= NAMES
    models = {sample.labels["model_name"] for family in families.values() for sample in family.samples}
    assert models == {"a", "b"}


def test_the_service_counts_its_tokens(client):
    def generated():
        families = text_string_to_metric_families(client.get("/metrics").text)
        family = next(family for family in families if family.name == "vllm:generation_tokens")
        return family.samples[0].value

    before = generated()
    body = {"model": "mini", "prompt": "2+3=", "max_tokens": 7, "ignore_eos": True}
    assert client.post("/v1/completions", json=body).status_code == 200
    assert generated() == before + 7
