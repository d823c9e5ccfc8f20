import pytest
from pydantic import ValidationError

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.errors import error_body, error_status, out_of_range, validation_error
from shoestring.serve.dialects.openai_chat_request import ChatCompletionRequest
from shoestring.serve.dialects.openai_completions import CompletionRequest

CHAT = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
TEXT = {"model": "m", "prompt": "a"}
EMPTY_PART = [{"role": "user", "content": [{}]}]


def problems(model, body):
    with pytest.raises(ValidationError) as error:
        model.model_validate(body)
    return [{**each, "loc": ("body", *each["loc"])} for each in error.value.errors()]


@pytest.mark.parametrize(
    ("model", "body", "field"),
    [
        (ChatCompletionRequest, {"model": "m"}, "messages"),
        (ChatCompletionRequest, CHAT | {"messages": EMPTY_PART}, "messages.0.content.0.type"),
        (ChatCompletionRequest, CHAT | {"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
        (ChatCompletionRequest, CHAT | {"stop": ["a", 3]}, "stop.1"),
        (ChatCompletionRequest, CHAT | {"thinking": {}}, "thinking.type"),
        (ChatCompletionRequest, CHAT | {"max_tokens": "3", "top_p": "1"}, "max_tokens"),
        (CompletionRequest, TEXT | {"prompt": [[1, "a"]]}, "prompt.0.1"),
        (CompletionRequest, None, None),
    ],
)  # fmt: skip
def test_the_field_is_named_without_words_of_pydantic(model, body, field):
    error = validation_error(problems(model, body), body)
    assert (error.status, error.field) == (400, field)


def test_a_parameter_out_of_range_is_found_behind_other_forms():
    body = CHAT | {"stop": ["a"] * 17}
    error = out_of_range(problems(ChatCompletionRequest, body), body)
    assert (error.status, error.field) == (422, "stop")
    assert out_of_range(problems(ChatCompletionRequest, {}), {}) is None


def test_deepls_paths_have_its_form_and_statuses():
    errors = [RequestError(kind, "no") for kind in ("authentication", "balance", "too_large", "invalid")]
    assert [error_status("/v2/translate", error) for error in errors] == [403, 456, 413, 400]
    assert [error_status("/v1/models", error) for error in errors] == [401, 402, 413, 400]
    assert error_body("/v3/glossaries", errors[0]) == {"message": "no"}
