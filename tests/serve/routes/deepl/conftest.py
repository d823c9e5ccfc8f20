"""A service with accounts whose only model is a phrasebook, and clients of it."""

import pytest
from starlette.testclient import TestClient

from tests.serve.phrasebook import Phrasebook
from tests.serve.site import new_site


@pytest.fixture
def book():
    return Phrasebook()


@pytest.fixture
def phrase_site(database_url, book):
    site = new_site(database_url, backend=book)
    with site.client:
        yield site


def keyed(site, browser):
    """A client with a new key of a person who is signed in."""
    key = browser.post("/account/keys", json={"name": "deepl"}).json()["key"]
    headers = {"Authorization": f"DeepL-Auth-Key {key}"}
    client = TestClient(site.app, raise_server_exceptions=False, headers=headers)
    client.portal = site.client.portal  # one event loop: documents go on after the request
    return client


@pytest.fixture
def deepl(phrase_site):
    """A client of DeepL's API."""
    return keyed(phrase_site, phrase_site.person())


@pytest.fixture
def stranger(phrase_site):
    """Another account's client."""
    return keyed(phrase_site, phrase_site.person("bob@example.com"))
