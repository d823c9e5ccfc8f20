import pytest

from shoestring.errors import TokenizerError
from shoestring.tokenizer.chat.messages import check_messages

USER = {"role": "user", "content": "hi"}

WRONG = [
    ([], "the conversation is empty"),
    (["hi"], "message 0 is a str"),
    ([{"role": "robot", "content": "hi"}], "message 0 has the role 'robot'; the roles are system, user"),
    ([USER, {"role": "assistant"}], r"message 1 \(assistant\) has no content"),
    ([{"role": "user", "content": 3}], "message 0 has content that is not text"),
    ([{"role": "user", "content": [{"type": "image_url"}]}], "message 0 has content that is not text"),
    ([{"role": "user", "content": "x", "tool_calls": [{}]}], "only an assistant message"),
    ([{"role": "assistant", "tool_calls": [{}]}], "tool call 0 of message 0 has no function with a name"),
    ([{"role": "assistant", "tool_calls": [{"type": "x", "function": {"name": "f"}}]}], "has the type 'x'"),
    ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 3}}]}], "has arguments"),
]


@pytest.mark.parametrize(("messages", "sentence"), WRONG)
def test_wrong_messages_are_named(messages, sentence: str):
    with pytest.raises(TokenizerError, match=sentence):
        check_messages(messages)


def test_other_servers_names_are_understood():
    checked = check_messages(
        [
            {
                "role": "developer",
                "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "kind"}],
            },
            {"role": "assistant", "content": "yes", "reasoning": "hm"},
        ]
    )
    assert checked[0] == {"role": "system", "content": "be kind"}
    assert checked[1] == {"role": "assistant", "content": "yes", "reasoning_content": "hm"}
