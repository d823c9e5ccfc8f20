"""Secrets and prompts of a running service are in no log, span, metric, error, database file or backup."""

import json
import logging
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shoestring.device import choose
from shoestring.engine.load import load_engine
from shoestring.engine.settings import EngineSettings
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.hub import resolve
from shoestring.serve import app
from shoestring.serve.accounts.codes import pyotp
from shoestring.serve.accounts.oidc import new_attempt
from shoestring.serve.accounts.secret import Secret
from shoestring.serve.accounts.sign_in import Credentials, SignedIn
from shoestring.serve.accounts.tokens import new_key, read_key
from shoestring.serve.backends.address import Address
from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.local import LocalBackend
from shoestring.serve.backends.remote import RemoteBackend
from shoestring.serve.config import ServiceConfig
from shoestring.serve.logs import JsonFormatter
from shoestring.serve.routes.sign_in import SignInBody
from shoestring.serve.storage.backup import backup
from shoestring.serve.storage.migrate import migrate
from shoestring.serve.tracing import SpanObserver
from tests.serve.site import new_site
from tests.serve.words import Words

EMAIL, PROMPT = "canary-mail-5b1d@example.com", "canary-prompt-5b1d"
PASSWORD, OTHER, WRONG = "first canary 5b1d", "second canary 5b1d", "wrong canary 5b1d"
MESSAGES = [{"role": "user", "content": f"Use 3, 5, 7 {PROMPT}"}]
CHAT = {"messages": MESSAGES, "max_tokens": 3}
PATHS = {
    "/v1/chat/completions": CHAT,
    "/beta/chat/completions": CHAT,
    "/v1/completions": {"prompt": PROMPT, "max_tokens": 3},
    "/v1/messages": CHAT,
    "/v1/responses": {"input": PROMPT, "max_output_tokens": 16},
    "/api/chat": {"messages": MESSAGES, "options": {"num_predict": 3}},
}
WRONG_FIELDS = [
    {"messages": PROMPT},
    {"messages": [{"role": PROMPT, "content": PROMPT}]},
    {"messages": [*MESSAGES, PROMPT]},
    {"temperature": PROMPT},
    {"temperature": 99},
    {"max_tokens": 10**6},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": PROMPT}}}},
]


class Broken(Words):
    """A backend whose errors hold the prompt: at the beginning, or after the first words."""

    def __init__(self, is_late):
        super().__init__()
        self._is_late, self.card = is_late, ModelCard(id="broken", max_model_len=100, created_s=0)

    async def prepare(self, request):
        if not self._is_late:
            raise ValueError(f"cannot read {request}")
        return await super().prepare(request)

    async def _deltas(self):
        async for delta in super()._deltas():
            yield delta
            raise KeyError(PROMPT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def course(folder):
    """A busy day of the service: (canaries by name, everything that came out by name)."""
    records, replies, spans = [], [], InMemorySpanExporter()
    handler = logging.Handler()
    handler.emit = records.append
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    statements = logging.getLogger("sqlalchemy")
    statements.setLevel(logging.INFO)
    url, provider = f"sqlite:///{folder / 'service.db'}", TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "trace_observer", lambda: SpanObserver(provider))
        migrate(url)
        site = new_site(url, has_mail=True)
    checkpoint = Checkpoint.open(resolve("mini"))
    engine = load_engine(
        checkpoint, choose("cpu"), settings=EngineSettings(max_num_seqs=4, max_model_len=256)
    )
    site.app.state.service.backends |= {
        "mini": LocalBackend("mini", engine, checkpoint.template),
        "broken": Broken(is_late=False),
        "late": Broken(is_late=True),
    }
    with site.client:
        canaries = live(site, replies)
        operator = {"x-api-key": site.hosting.accounts.authenticator.operator_key}
        metrics = site.browser().get("/metrics", headers=operator).text
        backup(url, folder / "backup.db")
        files = {path.name: path.read_bytes() for path in folder.glob("*.db*")}
    root.removeHandler(handler)
    root.setLevel(level)
    statements.setLevel(logging.WARNING)
    own = [
        record for record in records if not record.name.startswith("http")
    ]  # the client's, not the service's
    finished = spans.get_finished_spans()
    assert {"service.db", "service.db-wal", "backup.db"} <= files.keys()
    assert len(finished) > 20
    assert {"shoestring.serve.access", "sqlalchemy.engine.Engine"} <= {record.name for record in own}
    assert {reply.status_code for reply in replies} >= {400, 401, 403, 404, 500}
    output = {
        "log": "\n".join(JsonFormatter().format(record) for record in own),
        "spans": "\n".join(span.to_json() for span in finished),
        "metrics": metrics,
        "errors": "\n".join(f"{reply.headers} {reply.text}" for reply in replies if is_error(reply)),
    }
    return canaries, output | {name: content.decode("latin-1") for name, content in files.items()}


def is_error(reply) -> bool:
    """Whether a reply is an error, or a stream with one in it."""
    return reply.status_code >= 400 or '"error":{' in reply.text.replace(": ", ":")


def live(site, replies) -> dict[str, str]:
    """Use the service in every way; returns the secrets that were in play."""
    person, stranger = site.browser(), site.browser()
    person.portal = stranger.portal = site.client.portal  # the event loop of the engine

    def post(path, browser=person, **fields):
        replies.append(browser.post(path, json=fields))
        return replies[-1]

    post("/auth/sign-up", email=EMAIL, password=PASSWORD)
    checked = site.mails[-1][2].strip().rpartition("/")[2]
    post("/auth/check-email", link=checked)
    post("/auth/sign-in", email=EMAIL, password=WRONG)
    post("/auth/sign-in", email=EMAIL, password={"secret": WRONG})
    post("/auth/sign-up", email=EMAIL, password=PASSWORD)
    post("/auth/sign-in", email=EMAIL, password=PASSWORD)
    first = dict(person.cookies)
    post("/auth/password", password=PASSWORD, new_password=OTHER)
    post("/auth/forgotten", email=EMAIL)
    reset = site.mails[-1][2].strip().rpartition("/")[2]
    code_secret = post("/auth/codes", password=OTHER).json()["secret"]
    code = pyotp.TOTP(code_secret).now()
    recovery = post("/auth/codes/confirm", code=code).json()["recovery_codes"]
    key = post("/account/keys", name="laptop", scope="account").json()["key"]
    post("/account/keys", name="x", scope="admin")
    replies.extend(person.get(path) for path in ("/account/export", "/account/keys", "/account/sessions"))
    wrong = new_key().text(Secret(b"t" * 32))
    for path, fields in PATHS.items():
        for model in ("words", "mini", "broken", "late", "none"):
            for stream in (False, True):
                headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": f"{path} {model} {stream}"}
                body = {**fields, "model": model, "stream": stream, "user": PROMPT}
                replies.append(stranger.post(path, json=body, headers=headers))
        replies.append(stranger.post(path, json={**fields, "model": "words"}, headers={"x-api-key": wrong}))
        replies.append(stranger.post(path, content=f'{{"{PROMPT}', headers={"x-api-key": key}))
    for fields in WRONG_FIELDS:
        body = {**CHAT, "model": "mini", **fields}
        replies.append(stranger.post("/v1/chat/completions", json=body, headers={"x-api-key": key}))
    return {
        "prompt": PROMPT,
        "passwords": PASSWORD,
        "new password": OTHER,
        "wrong password": WRONG,
        "key": key,
        "secret of the key": read_key(key, site.hosting.accounts.secret).secret,
        "wrong key": wrong,
        "operator's key": site.hosting.accounts.authenticator.operator_key,
        "link": checked,
        "reset link": reset,
        "secret of codes": code_secret,
        "recovery code": recovery[0],
        **{f"first {name}": token for name, token in first.items()},
        **{f"second {name}": token for name, token in dict(person.cookies).items()},
    }


@pytest.mark.parametrize(
    "place", ["log", "spans", "metrics", "errors", "service.db", "service.db-wal", "backup.db"]
)
def test_no_secret_and_no_prompt_comes_out(course, place):
    canaries, output = course
    assert len(output[place]) > 500
    assert not [name for name, canary in canaries.items() if canary in output[place]]
    assert len(set(canaries.values())) == len(canaries) == 16


def test_an_address_is_in_the_database_and_nowhere_else(course):
    _, output = course
    assert {place for place, text in output.items() if EMAIL in text} <= {
        "service.db",
        "service.db-wal",
        "backup.db",
    }
    assert EMAIL in output["backup.db"]


def test_a_secret_is_not_in_the_text_of_what_holds_it():
    canary = "canary-5b1d-" * 4
    card, key = ModelCard(id="m", max_model_len=9, created_s=0), new_key()
    attempt = new_attempt()
    holders = [
        Secret(canary.encode()),
        Credentials(email="a", password=canary, code=canary, device=canary),
        SignedIn(account=None, session=canary, device=canary),  # type: ignore[arg-type]
        Address(url="http://a", key=canary),
        RemoteBackend(card, "http://a", model="m", key=canary),
        SignInBody(email="a", password=canary, code=canary),
        ServiceConfig(database=f"postgresql://a:{canary}@b/c"),
    ]
    assert not [text for holder in holders for text in (repr(holder), str(holder)) if "canary" in text]
    assert key.secret not in repr(key)
    assert attempt.verifier not in repr(attempt)
    assert json.dumps(canary) not in repr(holders)
