"""Routes of this machine's models."""

import shutil
import time

import pytest
from starlette.testclient import TestClient

from shoestring.model.hf.hub import resolve
from shoestring.serve.app import build_app
from shoestring.serve.backends.lazy import LazyBackend, ModelMemory
from shoestring.serve.models.local_models import LocalModels
from shoestring.serve.models.opening import ModelSettings, loadable_model
from shoestring.serve.service import Service
from shoestring.serve.training.folder import RunsFolder
from tests.serve.training.folders import write_run
from tests.serve.words import Words


@pytest.fixture
def local(tmp_path, model_cache):
    """The models of a machine that has mini, one of a training, and a copy in its cache."""
    shutil.copytree(resolve("mini"), model_cache / "copy")
    run = write_run(tmp_path / "runs" / "demo")
    shutil.copytree(resolve("mini"), run / "zero" / "model")
    memory = ModelMemory(lambda loaded: (1 << 30) - loaded)
    return LocalModels(memory, ModelSettings(device="cpu", weights="none"), RunsFolder(run.parent))


@pytest.fixture
def client(local):
    mini = LazyBackend(loadable_model("mini", local.settings), local.memory)
    app = build_app(Service({"mini": mini, "words": Words()}), local_models=local)
    with TestClient(app, raise_server_exceptions=False, base_url="http://localhost") as client:
        yield client


def states(client):
    return {model["name"]: model["state"] for model in client.get("/local-models").json()["models"]}


def until(is_true):
    for _ in range(1500):
        if is_true():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come")


def post(client, verb, **body):
    return client.post(f"/local-models/{verb}", json=body)


def test_models_are_listed_with_what_they_take(client):
    shown = client.get("/local-models").json()
    models = {model["name"]: model for model in shown["models"]}
    assert list(models) == ["mini", "words", "copy", "demo/zero"]
    assert states(client) == {"mini": "served", "words": "loaded", "copy": "here", "demo/zero": "here"}
    assert [model["source"] for model in models.values()] == ["package", "server", "folder", "training"]
    copy = models["copy"]
    assert (copy["form"], copy["max_model_len"], copy["problem"]) == ("BF16", 512, "")
    assert copy["parameters"] > copy["active_parameters"] > 500_000
    assert copy["memory_bytes"] == models["mini"]["memory_bytes"] > copy["disk_bytes"] / 2
    assert models["words"]["memory_bytes"] is None
    assert shown["free_bytes"] == 1 << 30
    tag = client.get("/local-models").headers["etag"]
    assert client.get("/local-models", headers={"If-None-Match": tag}).status_code == 304


def test_a_model_is_loaded_asked_and_unloaded(client):
    assert post(client, "load", name="demo/zero").status_code == 204
    until(lambda: states(client)["demo/zero"] == "loaded")
    assert "demo/zero" in [model["id"] for model in client.get("/v1/models").json()["data"]]
    body = {"model": "demo/zero", "messages": [{"role": "user", "content": "2+3="}], "max_tokens": 3}
    assert client.post("/v1/chat/completions", json=body).json()["usage"]["completion_tokens"] == 3
    assert client.get("/local-models").json()["free_bytes"] < 1 << 30
    assert post(client, "load", name="demo/zero").status_code == 204  # it is there
    assert post(client, "unload", name="demo/zero").status_code == 204
    assert states(client)["demo/zero"] == "here"
    assert client.post("/v1/chat/completions", json=body).status_code == 404
    assert client.get("/local-models").json()["free_bytes"] == 1 << 30


def test_what_is_in_use_or_elsewhere_is_not_unloaded(client):
    backend = client.app.state.service.backends["mini"]
    backend._num_open = 1
    assert post(client, "unload", name="mini").status_code == 409
    backend._num_open = 0
    assert post(client, "unload", name="words").status_code == 404
    assert post(client, "unload", name="mini").status_code == 204
    assert states(client)["mini"] == "here"


def test_the_last_model_stays(client):
    client.app.state.service.backends.pop("words")
    reply = post(client, "unload", name="mini")
    assert (reply.status_code, "load another one first" in reply.text) == (409, True)


def test_a_smaller_model_is_made_and_erased(client):
    assert post(client, "quantize", name="demo/zero", bits=4).status_code == 202
    until(lambda: "demo-zero-int4" in states(client))
    until(lambda: client.get("/local-models").json()["jobs"] == [])
    small = next(m for m in client.get("/local-models").json()["models"] if m["name"] == "demo-zero-int4")
    assert small["form"] == "int4"
    assert post(client, "quantize", name="demo/zero", bits=4).status_code == 400  # it is there already
    assert post(client, "load", name="demo-zero-int4").status_code == 204
    assert post(client, "erase", name="demo-zero-int4").status_code == 409
    until(lambda: states(client)["demo-zero-int4"] == "loaded")
    assert post(client, "unload", name="demo-zero-int4").status_code == 204
    assert post(client, "erase", name="demo-zero-int4").status_code == 204
    assert "demo-zero-int4" not in states(client)


def test_a_fetch_that_fails_says_why_until_it_is_seen(client, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    assert post(client, "pull", name="org/name").status_code == 202
    until(lambda: client.get("/local-models").json()["jobs"][0]["failure"])
    (job,) = client.get("/local-models").json()["jobs"]
    assert (job["kind"], job["name"]) == ("pull", "org/name")
    assert client.delete(f"/local-models/jobs/{job['id']}").status_code == 204
    assert client.get("/local-models").json()["jobs"] == []
    assert client.delete(f"/local-models/jobs/{job['id']}").status_code == 404


@pytest.mark.parametrize(
    ("verb", "body", "status"),
    [
        ("load", {"name": "../copy"}, 404),
        ("load", {"name": "/etc"}, 404),
        ("load", {"name": ""}, 400),
        ("erase", {"name": "../../x"}, 404),
        ("erase", {"name": "demo/zero"}, 400),
        ("quantize", {"name": "copy", "bits": 5}, 400),
        ("pull", {"name": "--help"}, 400),
        ("pull", {"name": "/etc/passwd"}, 400),
        ("pull", {"name": "a/../b"}, 400),
        ("pull", {"name": "~/x"}, 400),
        ("pull", {}, 400),
    ],
)
def test_a_hostile_name_is_refused(client, verb, body, status):
    assert post(client, verb, **body).status_code == status
    assert client.get("/local-models").json()["jobs"] == []


def test_a_damaged_model_says_so(client, model_cache):
    folder = model_cache / "bad"
    folder.mkdir()
    (folder / "config.json").write_text("{")
    (folder / "model.safetensors").write_text("nothing")
    bad = next(m for m in client.get("/local-models").json()["models"] if m["name"] == "bad")
    assert bad["problem"]
    assert post(client, "load", name="bad").status_code == 400


def test_with_accounts_it_is_for_admins_alone(site, local):
    site.app.state.local_models = local
    for browser, status in ((site.browser(), 401), (site.person(), 403), (site.admin(), 200)):
        assert browser.get("/local-models").status_code == status
