"""SentencePiece's vocabularies: ids and texts as `tokenizers` has them, whole, in streams and in chats."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.engine.engine import Engine
from shoestring.engine.llm import LLM
from shoestring.engine.request import SamplingParams, StructuredOutputsParams
from shoestring.errors import TokenizerError
from shoestring.model.presets import TINY
from shoestring.model.transformer import Transformer
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.template import Piece, encode_pieces
from shoestring.tokenizer.definition import compile_definition
from shoestring.tokenizer.stream import TextStream
from tests.tokenizer.sentencepieces import SPACE, train

FORMS = ("llama", "metaspace", "bare")
ROLES = {"bos_token": "<s>", "eos_token": "</s>"}
HARD = [
    "Hello world",
    " a leading space",
    "   three",
    "trailing  ",
    "line\nline\r\n\ttab",
    "naïve Ünï 我想 😀 \u0301",
    "1234567 3.14",
    "<s>not special</s> <unk> <0x41>",
    "\x00\x7f",
    "a" * 300,
]


@pytest.fixture(scope="module", params=FORMS)
def definition(request, texts):
    return train(texts, form=request.param)


@pytest.fixture(scope="module")
def llama(texts):
    return Tokenizer(train(texts), ROLES)


any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=SPACE), max_size=60)


@pytest.mark.parametrize("text", HARD)
def test_ids_and_texts_are_those_of_tokenizers(definition, text):
    ours, theirs = Tokenizer(definition, ROLES), compile_definition(definition, "t")
    ids = theirs.encode(text, add_special_tokens=False).ids
    assert ours.encode(text, allow_special=True) == ids
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
    plain = ours.encode(text)
    assert not set(plain) & {0, 1, 2}
    is_metaspace = definition["pre_tokenizer"] is not None
    assert ours.decode(plain) == (text.removeprefix(" ") if is_metaspace else text)


@given(any_text)
def test_every_text_comes_back(llama, text):
    assert llama.decode(llama.encode(text)) == text


@given(st.lists(st.integers(0, 699), max_size=40), st.lists(st.integers(0, 4), max_size=40), st.booleans())
def test_a_stream_of_any_ids_is_their_decoding(llama, ids, sizes, continues):
    stream, pieces, rest = TextStream(llama, continues=continues), [], list(ids)
    for size in [*sizes, len(rest)]:
        pieces += stream.push(rest[:size])
        rest = rest[size:]
    text = "".join(piece.text for piece in [*pieces, *stream.finish()])
    begin = [3 + ord("x")]  # the token of a byte
    assert text == (
        llama.decode([*begin, *ids], skip_special=True)[1:]
        if continues
        else llama.decode(ids, skip_special=True)
    )


def test_texts_that_go_on_get_no_space(llama):
    assert llama.encode_batch(["ab"], continues=True) != llama.encode_batch(["ab"])
    whole = llama.encode("Hello world")
    begin = llama.encode("Hello")
    assert whole == begin + llama.encode_batch([" world"], continues=True)[0]


@pytest.mark.parametrize("form", FORMS)
def test_a_chat_is_encoded_as_its_text_is_by_tokenizers(texts, form):
    definition = train(texts, form=form)
    tokenizer, backend = Tokenizer(definition, ROLES), compile_definition(definition, "t")
    pieces = [
        Piece(text="<s>", special=True),
        Piece(text="[INST] hi [/INST]"),
        Piece(text="</s>", special=True),
    ]
    assert encode_pieces(pieces, tokenizer).ids == backend.encode("<s>[INST] hi [/INST]</s>").ids
    learned = encode_pieces([*pieces[:2], Piece(text=" answer", in_loss=True)], tokenizer)
    assert tokenizer.decode(learned.ids[1:]).strip() == "[INST] hi [/INST] answer"
    prompt = encode_pieces(pieces[:2], tokenizer).ids
    assert learned.ids[: len(prompt)] == prompt


def test_what_cannot_hold_every_text_is_refused(texts):
    for change in ({"byte_fallback": False}, {"vocab": {"a": 0}, "merges": []}):
        definition = train(texts)
        definition["model"] |= change
        with pytest.raises(TokenizerError, match="no tokens for single bytes"):
            Tokenizer(definition, {})
    definition = train(texts)
    definition["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    with pytest.raises(TokenizerError, match="not of SentencePiece's kind"):
        Tokenizer(definition, {})


def test_it_is_loaded_and_saved(llama, tmp_path):
    llama.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.encode_batch(HARD) == llama.encode_batch(HARD)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["bos_token"] == "<s>"


@pytest.fixture(scope="module")
def llm(llama):
    torch.manual_seed(0)
    config = replace(TINY, vocab_size=llama.vocab_size, num_nextn_predict_layers=0, eos_token_id=2)
    model = Transformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return LLM.of(Engine(model.eval(), llama), seed=0)


def test_a_grammar_holds_with_bytes_and_spaces(llm):
    values = {"a": {"enum": ["é 😀", "b c"]}}
    schema = {"type": "object", "properties": values, "required": ["a"], "additionalProperties": False}
    constraint = StructuredOutputsParams(json=schema)
    params = SamplingParams(temperature=1.0, max_tokens=80, structured_outputs=constraint)
    for output in llm.generate(["x"] * 8, params):
        assert output.outputs[0].finish_reason == "stop", output.outputs[0].stop_reason
        assert json.loads(output.outputs[0].text)["a"] in ("é 😀", "b c")


@pytest.mark.parametrize("stop", ["e", " ", "é"])
def test_a_stop_string_is_found_in_tokens_of_bytes(llm, llama, stop):
    bias = {str(i): 30.0 for i in llama.encode_batch([f"q{stop}"], continues=True)[0]}
    params = SamplingParams(temperature=1.0, max_tokens=60, stop=[stop], logit_bias=bias)
    for output in llm.generate(["x"] * 4, params):
        completion = output.outputs[0]
        assert completion.stop_reason == stop
        assert stop not in completion.text
        decoded = llama.decode(completion.token_ids)
        assert decoded.startswith(completion.text.removeprefix(" "))
