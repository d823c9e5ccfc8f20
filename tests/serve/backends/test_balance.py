from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from shoestring.sampling_params import SamplingParams
from shoestring.serve.backends.balance import SLACK_RATIO, SLACK_TOKENS, Candidate, choose, prefix_of
from shoestring.serve.backends.request import ChatRequest, TextRequest

SAMPLING = SamplingParams()
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        name=st.text(max_size=8),
        weight=st.floats(0.1, 10),
        open_tokens=st.floats(0, 1e6),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda candidate: candidate.name,
)


def idle(*names, **weights):
    return [Candidate(name=name, weight=weights.get(name, 1.0), open_tokens=0.0) for name in names]


def user(text, *more, **fields):
    messages = ({"role": "system", "content": "s"}, {"role": "user", "content": text}, *more)
    return ChatRequest(messages=messages, sampling=SAMPLING, **fields)


@given(CANDIDATES, st.text())
def test_no_server_gets_work_that_is_clearly_busier_than_another(candidates, prefix):
    chosen = choose(candidates, prefix)
    least = min(candidate.load for candidate in candidates)
    assert chosen in candidates
    assert chosen.load <= SLACK_RATIO * least + SLACK_TOKENS


@given(CANDIDATES, st.text(), st.randoms())
def test_the_order_of_the_servers_says_nothing(candidates, prefix, random):
    quiet = [replace(candidate, open_tokens=0.0) for candidate in candidates]
    assert choose(random.sample(quiet, len(quiet)), prefix) == choose(quiet, prefix)


@given(CANDIDATES, st.text(), st.data())
def test_a_server_that_leaves_moves_only_its_own_prefixes(candidates, prefix, data):
    quiet = [replace(candidate, open_tokens=0.0) for candidate in candidates]
    before = choose(quiet, prefix)
    gone = data.draw(st.sampled_from(quiet))
    rest = [candidate for candidate in quiet if candidate != gone]
    if rest and gone != before:
        assert choose(rest, prefix) == before


def test_prefixes_are_shared_out_by_weight():
    counts = Counter(choose(idle("a", "b", "c", c=2.0), str(number)).name for number in range(4000))
    assert 900 < counts["a"] < 1100
    assert 900 < counts["b"] < 1100
    assert 1800 < counts["c"] < 2200


def test_a_conversation_keeps_its_prefix_as_it_grows():
    reply, more = {"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}
    assert prefix_of(user("a")) == prefix_of(user("a", reply)) == prefix_of(user("a", reply, more))


def test_what_must_not_share_a_cache_has_a_prefix_of_its_own():
    tool = {"type": "function", "function": {"name": "f"}}
    requests = [user("a"), user("b"), user("a", cache_salt="x"), user("a", tools=(tool,))]
    requests += [TextRequest(prompt=prompt, sampling=SAMPLING) for prompt in ("a", "b", (1, 2), (1, 3))]
    assert len({prefix_of(request) for request in requests}) == len(requests)


def test_a_text_is_known_by_its_beginning():
    long = "word " * 1000
    first, second = (TextRequest(prompt=long + end, sampling=SAMPLING) for end in ("a", "b"))
    assert prefix_of(first) == prefix_of(second)


def test_half_a_character_is_no_error():
    assert prefix_of(TextRequest(prompt="\ud800", sampling=SAMPLING))
