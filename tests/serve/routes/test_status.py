"""The status page and the incidents: the truth, without names, and nothing from elsewhere."""

import asyncio
import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from starlette.testclient import TestClient

from shoestring.serve.admission.admission import Admission
from shoestring.serve.app import build_app
from shoestring.serve.gate.gate import Gate
from shoestring.serve.gate.records import MemoryRecords, Note
from shoestring.serve.gate.states import State

CHAT = {"model": "mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
HTML = {"accept": "text/html,application/xhtml+xml"}


class Clock:
    now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def service(new_service):
    service = new_service()
    service.admission = Admission(slots={"mini": 2})
    service.gate = Gate(MemoryRecords(), clock=Clock())
    return service


@pytest.fixture(scope="module")
def client(service):
    with TestClient(build_app(service), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def gate(service, monkeypatch):
    """A new gate of the service, whose time a test sets."""
    gate = Gate(MemoryRecords(), clock=Clock())
    monkeypatch.setattr(service, "gate", gate)
    return gate


def flood(gate):
    async def seconds():
        for _ in range(3):
            gate._clock.now_s += 1
            for _ in range(10):
                gate.signals.sign_up("192.0.2")
            await gate.measure()

    asyncio.run(seconds())


def test_a_calm_service(client):
    client.post("/v1/chat/completions", json=CHAT)
    status = client.get("/status").json()
    assert (status["condition"], status["headline"]) == ("good", "Everything works.")
    assert status["registration"]["state"] == "open"
    (model,) = status["models"]
    assert (model["name"], model["is_healthy"], model["running"], model["waiting"]) == ("mini", True, 0, 0)
    assert status["requests"]["replies"] > 0
    assert status["requests"]["failure_share"] == 0
    assert status["requests"]["first_token_s"] > 0
    assert client.get("/incidents").json() == {"incidents": []}


def test_an_attack_is_told_as_it_is(client, gate):
    flood(gate)
    status = client.get("/status").json()
    assert status["condition"] == "defending"
    assert status["registration"]["state"] == "proof_of_work"
    assert status["registration"]["since"].startswith("2027-01-15T")
    (incident,) = status["incidents"]
    assert incident["end"] is None
    assert incident["notes"][0]["by"] == "service"
    assert "many more sign-ups than usual" in incident["notes"][0]["text"]
    page = client.get("/status", headers=HTML).text
    assert "The service defends itself" in page
    assert "many more sign-ups than usual" in page


def test_incidents_of_the_operator_have_no_names(client, gate):
    async def write():
        number = await gate.records.begin_incident(1.8e9, "A disk is <b>full</b>.", "acc_ann")
        await gate.records.add_note(
            Note(incident=number, time_s=1.8e9 + 60, kind="end", text="A new disk.", actor="acc_ann")
        )
        await gate.pin(State.CLOSED, "we move <script>house</script>", "acc_ann")

    asyncio.run(write())
    reply = client.get("/incidents")
    (incident,) = reply.json()["incidents"]
    assert [note["by"] for note in incident["notes"]] == ["operator", "operator"]
    assert incident["end"] == "2027-01-15T08:01:00Z"
    page = client.get("/status", headers=HTML).text
    assert "acc_ann" not in reply.text + page
    assert "&lt;b&gt;full&lt;/b&gt;" in page
    assert "<script" not in page
    assert client.get("/status").json()["condition"] == "good"  # the operator's own wish is no attack


def test_a_full_and_a_failed_service(client, service, gate, monkeypatch):
    tally = client.app.state.tally
    counts = {"replies": 100, "full": 5, "failures": 0, "refusals": 0}
    monkeypatch.setattr(tally, "count", lambda name: counts[name])
    assert client.get("/status").json()["condition"] == "busy"
    monkeypatch.setattr("shoestring.serve.backends.local.HEARTBEAT_LIMIT_S", -1.0)
    status = client.get("/status").json()
    assert (status["condition"], status["models"][0]["is_healthy"]) == ("failed", False)


class Addresses(HTMLParser):
    """Every place that a page would load something from."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.sources = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset", "style")]


def test_the_page_loads_nothing_and_allows_only_its_style(client):
    reply = client.get("/status", headers=HTML)
    page = Addresses()
    page.feed(reply.text)
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert set(page.sources) == {"/status", "/incidents"}
    style = re.search("<style>(.*?)</style>", reply.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = reply.headers["content-security-policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "url(" not in style
    assert "@import" not in style


def test_without_accounts_there_is_no_registration(new_service):
    with TestClient(build_app(new_service())) as client:
        status = client.get("/status").json()
        assert status["registration"] is None
        assert status["models"][0]["running"] is None
        assert "Registration" not in client.get("/status", headers=HTML).text
        assert client.get("/incidents").json() == {"incidents": []}
