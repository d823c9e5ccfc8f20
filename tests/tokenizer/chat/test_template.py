from hypothesis import given
from hypothesis import strategies as st

from shoestring.tokenizer import special as sp
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
from shoestring.tokenizer.chat.template import (
    Piece,
    encode_chat,
    encode_pieces,
    encode_prompt,
    merge_pieces,
    prefix_break,
)


def test_the_mask_holds_answers_and_end_tokens_only(tokenizer: Tokenizer):
    messages = [
        {"role": "system", "content": "sys"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "uno"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "dos", "reasoning_content": "hm"},
    ]
    chat = encode_chat(messages, tokenizer, DeepSeekTemplate())
    learned = tokenizer.decode(i for i, in_loss in zip(chat.ids, chat.loss_mask, strict=True) if in_loss)
    rest = tokenizer.decode(i for i, in_loss in zip(chat.ids, chat.loss_mask, strict=True) if not in_loss)
    assert learned == f"uno{sp.EOS}{sp.THINK}hm{sp.THINK_END}dos{sp.EOS}"
    assert rest == f"{sp.BOS}sys{sp.USER}one{sp.ASSISTANT}{sp.USER}two{sp.ASSISTANT}"


@given(st.text(max_size=20), st.text(max_size=20))
def test_training_ids_continue_the_prompt_s_ids(tokenizer: Tokenizer, question: str, answer: str):
    """What is asked when serving is, id for id, what stood before the loss in training."""
    asked = [{"role": "user", "content": question}]
    prompt = encode_prompt(asked, tokenizer, DeepSeekTemplate())
    chat = encode_chat([*asked, {"role": "assistant", "content": answer}], tokenizer, DeepSeekTemplate())
    assert chat.ids[: len(prompt)] == prompt
    assert chat.loss_mask == [False] * len(prompt) + [True] * (len(chat.ids) - len(prompt))
    assert chat.ids[-1] == tokenizer.eos_id


def test_texts_join_unless_the_loss_parts_them(tokenizer: Tokenizer):
    pieces = [Piece(text="re"), Piece(text=""), Piece(text="turn"), Piece(text="self", in_loss=True)]
    assert merge_pieces(pieces) == [Piece(text="return"), Piece(text="self", in_loss=True)]
    chat = encode_pieces(pieces, tokenizer)
    assert chat.ids == tokenizer.encode("return") + tokenizer.encode("self")


def test_where_prefixes_part_is_told():
    assert prefix_break("abc", "abcd") is None
    assert prefix_break("abX", "abYd") == "from character 2 one reads 'abX' and the other 'abYd'"
    assert "from character 2" in str(prefix_break("abc", "ab"))
