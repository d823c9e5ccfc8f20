"""Routes of training runs, without accounts and with."""

import json

import pytest
from starlette.testclient import TestClient

from shoestring.serve.app import build_app
from shoestring.serve.service import Service
from shoestring.serve.training.folder import RunsFolder
from shoestring.serve.training.runs import Runs
from shoestring.train.runs.lock import run_lock
from tests.serve.training.folders import write_run
from tests.serve.words import Words


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "runs" / "demo")


@pytest.fixture
def client(run):
    app = build_app(Service({"words": Words()}), runs=Runs(RunsFolder(run.parent)))
    with TestClient(app, raise_server_exceptions=False, base_url="http://localhost") as client:
        yield client


def test_runs_are_listed_and_shown(client, run):
    (run.parent / "other").mkdir()
    head = {"name": "demo", "title": "R1 in miniature", "state": "stopped", "stage": "zero"}
    head |= {"num_finished": 2, "num_stages": 4, "tags": ["mini"], "note": "a first try"}
    assert client.get("/runs").json() == {"runs": [head], "yields": False}
    shown = client.get("/runs/demo").json()
    assert head.items() <= shown.items()
    zero = shown["stages"][2]
    assert (zero["step"], zero["steps"], zero["share"], zero["eta_s"]) == (4, 10, 0.4, None)
    assert shown["stages"][1]["scores"] == {"pass_at_1": 0.25, "seconds": 9}
    with run_lock(run, until="student"):
        shown = client.get("/runs/demo").json()
        assert (shown["state"], shown["stages"][2]["eta_s"]) == ("running", 18)


def test_curves_and_samples_grow(client, run):
    shown = client.get("/runs/demo/curves?stage=zero").json()
    assert shown["curves"] == {"accuracy": [[1, 0.1], [2, 0.2], [3, 0.3], [4, 0.4]]}
    answers = [(one["step"], one["samples"][0]["is_right"]) for one in shown["samples"]]
    assert answers == [(1, False), (2, True), (3, True), (4, True)]
    with (run / "zero" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "accuracy": 0.5}\n')
    assert client.get("/runs/demo/curves?stage=zero").json()["curves"]["accuracy"][-1] == [5, 0.5]
    assert client.get("/runs/demo/curves?stage=corpus").json() == {"curves": {}, "samples": []}
    (run / "student" / "student").mkdir(parents=True)
    (run / "student" / "student" / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n')
    assert client.get("/runs/demo/curves?stage=other").json()["curves"] == {"loss": [[1, 2]]}


def test_what_has_not_changed_is_not_sent_again(client, run):
    for path in ("/runs", "/runs/demo", "/runs/demo/curves?stage=base"):
        tag = client.get(path).headers["etag"]
        again = client.get(path, headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
    (run / "zero" / "stage.json").write_text('{"name": "zero"}')
    assert client.get("/runs/demo", headers={"If-None-Match": tag}).status_code == 200


def test_a_receipt_has_time_energy_and_cost(client, run):
    receipt = {
        "seconds": 12.5,
        "tokens": 1000,
        "energy": {"joules": "unavailable", "how": "unavailable"},
        "money": {"currency": "USD", "machine_rent": 0.01, "electricity": "unavailable"},
        "machine": {"cpu": "a processor", "cores": 2},
        "train_flops": float("nan"),
    }
    (run / "base" / "receipt.json").write_text(json.dumps(receipt))
    (shown,) = client.get("/runs/demo").json()["receipts"]
    assert shown == {
        **{"stage": "base", "seconds": 12.5, "tokens": 1000, "train_flops": None, "joules": None},
        **{"energy": "unavailable", "currency": "USD", "machine_rent": 0.01, "electricity": None},
        **{"cpu": "a processor", "cores": 2},
    }


@pytest.mark.parametrize(
    "content", ["[]", '{"seconds": "x", "energy": [], "machine": 1}', '{"tokens": 1e999}']
)
def test_hostile_files_are_survived(client, run, content):
    for path in ("base/receipt.json", "base/stage.json", "report.json", "process.json"):
        (run / path).write_text(content)
    (run / "zero" / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n' + "[" * 100_000)
    for path in ("/runs", "/runs/demo", "/runs/demo/curves?stage=zero", "/runs/demo/curves?stage=../base"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("name", ["%2e%2e", "other", "demo%2f..", "demo%00"])
def test_a_run_that_is_none_is_not_found(client, run, name):
    (run.parent / "other").symlink_to(run)
    for method, path in (("GET", ""), ("GET", "/curves"), ("POST", "/stop"), ("POST", "/resume")):
        assert client.request(method, f"/runs/{name}{path}").status_code in (404, 405)


def test_a_run_that_does_not_go_on_cannot_be_stopped(client):
    reply = client.post("/runs/demo/stop")
    assert reply.status_code == 409
    assert "no training is going on in demo" in reply.json()["error"]["message"]


def test_a_run_is_resumed_by_its_own_recipe(client, run, monkeypatch):
    started = []
    control = client.app.state.runs.control
    monkeypatch.setattr(control, "start", lambda out, arguments: started.append((out, arguments)))
    assert client.post("/runs/demo/resume").status_code == 204
    assert started == [(run, ["rl", "--resume", "--out", str(run), "--until", "student"])]


def test_a_website_cannot_use_the_service_of_its_visitor(client):
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert client.post("/runs/demo/stop", headers=headers).status_code == 403
    assert client.post("/runs/demo/stop", headers={"Origin": "https://example.com"}).status_code == 403
    assert client.get("/runs", headers=headers).status_code == 200


def test_with_accounts_runs_are_for_admins_alone(site, run):
    site.app.state.runs = Runs(RunsFolder(run.parent))
    person, admin = site.person(), site.admin()
    for browser, status in ((site.browser(), 401), (person, 403), (admin, 200)):
        assert browser.get("/runs").status_code == status
        assert browser.get("/runs/demo").status_code == status
    headers = {"Origin": "https://testserver"}
    assert person.post("/runs/demo/stop", headers=headers).status_code == 403
    assert admin.post("/runs/demo/stop", headers=headers).status_code == 409


def test_a_service_without_a_folder_shows_no_runs():
    with TestClient(build_app(Service({"words": Words()})), base_url="http://localhost") as client:
        assert client.get("/runs").status_code == 404
