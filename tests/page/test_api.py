"""The API's page: what it says is true of the server that it comes from, and its programs run."""

import shutil
import subprocess
import sys

import pytest

from tests.page.people import make_person, sign_in


def part(page, name):
    return page.get_by_role("region", name=name, exact=True)


def program(page, name):
    """The text of a program that the page shows."""
    programs = part(page, "Programs")
    programs.get_by_role("button", name=name).click()
    return programs.locator("pre").inner_text()


@pytest.mark.parametrize("name", ["curl", "openai-python", "anthropic-python", "JavaScript"])
def test_a_program_that_is_shown_runs(open_page, service, name):
    page = open_page("#/api")
    text = program(page, name)
    assert service.url in text
    assert '"mini"' in text
    if name == "JavaScript":
        answer = page.evaluate(f"async () => {{ {text.replace('console.log', 'return')} }}")
    elif name == "curl":
        if shutil.which("curl") is None:
            pytest.skip("needs curl")
        answer = subprocess.run(["sh", "-c", f"{text} -s"], capture_output=True, text=True, check=True).stdout
    else:
        answer = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, check=True
        ).stdout
    assert any(letter.isdigit() for letter in answer), answer


def test_addresses_models_and_limits_are_the_servers_own(open_page, service):
    page = open_page("#/api", size="phone", scheme="dark")
    addresses = part(page, "Addresses")
    addresses.get_by_text("OPENAI_BASE_URL").wait_for()
    shown = [item.locator("code").inner_text() for item in addresses.get_by_role("listitem").all()]
    assert shown[:4] == [f"{service.url}/v1", service.url, service.url, service.url]
    addresses.get_by_text("No key is asked on this machine").wait_for()
    models = part(page, "Models").get_by_role("listitem").all_inner_texts()
    assert [text.split()[0] for text in models] == ["mini", "echo", "parrot"]
    part(page, "What holds here").get_by_text("Nothing costs anything here").wait_for()


def test_a_request_is_tried_from_the_reference(open_page):
    page = open_page("#/api")
    trial = part(page, "Try it")
    trial.get_by_role("button", name="Send").click()
    trial.get_by_text("200 OK").wait_for()
    assert '"object": "chat.completion"' in trial.locator("pre").inner_text()
    reference = part(page, "Reference")
    reference.get_by_text("OpenAI").first.click()
    operation = reference.locator("details.operation", has_text="/tokenize").first
    operation.locator("summary").click()
    operation.get_by_role("button", name="Try it").click()
    assert trial.get_by_label("Path").input_value() == "/tokenize"
    trial.get_by_label("Body").fill('{"model": "mini", "prompt": "2+3="}')
    trial.get_by_role("button", name="Send").click()
    trial.get_by_text('"max_model_len"').wait_for()


def test_every_route_of_the_document_is_in_the_reference(open_page, service):
    page = open_page("#/api")
    reference = part(page, "Reference")
    reference.locator("details.operation").first.wait_for(state="attached")
    paths = page.request.get(f"{service.url}/openapi.json").json()["paths"]
    routes = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    shown = reference.locator("details.operation > summary").all_text_contents()
    assert {tuple(text.split()[:2]) for text in shown} == routes


def test_where_keys_are_asked_prices_and_limits_are_shown(open_page, paid):
    make_person(paid, "api@example.org")
    page = open_page("#/sign-in", of=paid)
    sign_in(page, paid, "api@example.org", "#/api")
    holds = part(page, "What holds here")
    holds.get_by_text("At most 6,000 requests a minute").wait_for()
    assert holds.get_by_role("row").last.inner_text().split()[:4] == ["mini", "$0.07", "$0.27", "$1.10"]
    part(page, "Addresses").get_by_text("Each request needs an API key").wait_for()
    assert "Bearer ss-YOUR-KEY" in program(page, "curl")
