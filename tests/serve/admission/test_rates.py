"""Times in rate headers, as OpenAI writes them."""

import pytest

from shoestring.serve.admission.buckets import Level
from shoestring.serve.admission.rates import rate_headers


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.12, "120ms"), (1.0, "1s"), (1.5, "1.5s"), (59.9, "59.9s"), (360.2, "6m0s")]
)
def test_durations(seconds, text):
    level = Level(True, 10, 9, seconds, 0.0)
    assert (b"x-ratelimit-reset-requests", text.encode()) in rate_headers(
        "/v1/models", {"requests": level}, 0
    )


def test_anthropic_has_the_time_of_the_reset():
    level = Level(True, 10, 9, 61.0, 0.0)
    found = dict(rate_headers("/v1/messages", {"requests": level}, 0))
    assert found[b"anthropic-ratelimit-requests-reset"] == b"1970-01-01T00:01:01Z"
    assert found[b"anthropic-ratelimit-requests-limit"] == b"10"
