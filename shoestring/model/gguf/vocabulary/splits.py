"""Ways to split text before byte-level BPE, by llama.cpp's names for them.

A GGUF file names its way in `tokenizer.ggml.pre`. A name stands for the patterns of a tokenizer.json and two
habits: whether a whole word of the vocabulary is taken without merging, and whether texts get a begin token.
For tokenizers trained by this package the name is "deepseek-v3": the same patterns, except that ours end
every run of one kind at 128 characters; a longer run may become other ids in llama.cpp (for the same text).
"""

from dataclasses import dataclass
from typing import Any

from shoestring.errors import TokenizerError
from shoestring.tokenizer import definition as definitions

_LETTERS = (  # letters with case, as DeepSeek's first tokenizers list them; escaped, since many look alike
    "A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf"
    "\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d"
    "\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4"
    "\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107"
    "\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17"
    "\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb"
    "\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_ENDINGS = "'s|'t|'re|'ve|'m|'ll|'d"
_SPACES = r"\s+(?!\S)|\s+"
_LINES = rf"\s*[\r\n]+|{_SPACES}"
_KANA = "[一-龥぀-ゟ゠-ヿ]+"

_GPT2 = rf"{_ENDINGS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACES}"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_GPT4 = rf"(?i:{_ENDINGS})|{_WORD}|\p{{N}}%s|{_MARKS}|%s"
_BORDER = r"[^\r\n\p{L}\p{N}]?"


def _cased(ending: str, without: str = "") -> str:
    """Words whose capitals come first, such as o200k's; `without` excludes characters."""
    upper, lower = (rf"[{kinds}\p{{Lm}}\p{{Lo}}\p{{M}}{without}]" for kinds in (r"\p{Lu}\p{Lt}", r"\p{Ll}"))
    return f"{_BORDER}{upper}*{lower}+{ending}|{_BORDER}{upper}+{lower}*{ending}"


_CASELESS_ENDINGS = f"(?i:{_ENDINGS})?"
_NOT_HAN = r"&&[^\p{Han}]"
_GPT4O = rf"{_cased(_CASELESS_ENDINGS)}|\p{{N}}%s| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LINES}"
_DEEPSEEK = (
    r"[!\"#$%%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+%s|{_SPACES}"
)
_WIDE_SPACES = "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))


@dataclass(frozen=True, slots=True)
class Split:
    """Patterns that split a text one after the other, and the habits that come with the name."""

    patterns: tuple[str, ...]
    whole_words: bool = False
    adds_bos: bool = False
    """For files that do not say it."""
    nfc: bool = False
    """The maker's tokenizer composes characters first; a GGUF file has no word for it."""


SPLITS = {
    "deepseek-v3": Split((r"\p{N}{1,3}", _KANA, _DEEPSEEK % r"[\r\n]*|\s*[\r\n]+")),
    "deepseek-llm": Split(
        (
            r"[\r\n]",
            rf"\s?[{_LETTERS}]+",
            r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"\s+$",
            "[一-龥ࠀ-一가-퟿]+",
            r"\p{N}",
        )
    ),
    "deepseek-coder": Split((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
    "qwen2": Split((_GPT4 % ("", _LINES),), nfc=True),
    "hunyuan": Split((_GPT4 % ("", _LINES),)),
    "qwen35": Split(
        (
            rf"(?i:{_ENDINGS})|{_BORDER}[\p{{L}}\p{{M}}]+|\p{{N}}"
            rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_LINES}",
        ),
        nfc=True,
    ),
    "llama-bpe": Split((_GPT4 % ("{1,3}", _LINES),), whole_words=True, adds_bos=True),
    "smaug-bpe": Split((_GPT4 % ("{1,3}", _LINES),)),
    "jais-2": Split((_GPT4 % ("{1,3}", rf"\s*[\r\n]+|{_WIDE_SPACES}|\s{{1}}"),)),
    "minicpm5": Split((r"\p{N}{1,3}", _GPT4 % ("+", _LINES)), whole_words=True),
    "seed-coder": Split((rf"(?i:{_ENDINGS})|{_WORD}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_LINES}",)),
    "exaone-moe": Split(
        (
            rf"(?i:{_ENDINGS})|{_BORDER}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
            rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|{_SPACES}",
        )
    ),
    "laguna": Split((r"[^\n]+|[\n]+", _GPT4 % ("", _LINES))),
    "ufakzeka": Split((rf"{_WORD}|\p{{N}}|{_MARKS}|{_LINES}",)),
    "gpt-2": Split((_GPT2,)),
    "smollm": Split((r"\p{N}", _GPT2)),
    "falcon": Split((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    "default": Split((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    "gpt-4o": Split((_GPT4O % "{1,3}",)),
    "minimax-m2": Split((_GPT4O % "{1,3}",), nfc=True),
    "tekken": Split(
        (rf"{_cased('')}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LINES}",), whole_words=True, adds_bos=True
    ),
    "tiny_aya": Split((r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O % "{1,3}")),
    "youtu": Split(
        ("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + _KANA, _GPT4O % ""), whole_words=True
    ),
    "kimi-k2": Split(
        (
            rf"[\p{{Han}}]+|{_cased(_CASELESS_ENDINGS, _NOT_HAN)}|\p{{N}}{{1,3}}"
            rf"|{_MARKS}|{_LINES}",
        ),
        whole_words=True,
    ),
    "spark2_5": Split((r"\p{N}{1,3}", _KANA, _DEEPSEEK % r"|[\r\n]", r"\p{N}")),
    "superbpe": Split((r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
    "poro-chat": Split((r" ?[^(\s|.,!?…。，、।۔،)]+",)),
    "viking": Split((r" ?[^(\s|.,!?…。，、।۔،)]+", r"\p{N}")),
}
"""By the name that an export writes."""

_OTHER_NAMES = {
    "deepseek-v3": "hunyuan-dense joyai-llm hy_v4",
    "qwen2": "deepseek-r1-qwen f2llmv2",
    "hunyuan": "kormo megrez stablelm2 solar-open grok-2 bailingmoe bailingmoe2 llada-moe",
    "llama-bpe": "llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
    "smaug-bpe": "dbrx glm4 chatglm-bpe",
    "gpt-2": "phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert mpt olmo jais "
    "trillion granite-docling exaone4",
    "smollm": "starcoder refact command-r codeshell exaone minerva-7b mellum2",
    "gpt-4o": "llama4 kanana2 talkie",
    "tiny_aya": "cohere2moe",
    "poro-chat": "bloom gpt3-finnish",
}
NAMES = {name: name for name in SPLITS} | {
    other: name for name, others in _OTHER_NAMES.items() for other in others.split()
}
"""The entry of SPLITS for each of llama.cpp's names."""

PROBE = (
    "I'd say WE'LL go, isn't it?  1234567 3.14\n\n  def f(x):\n\treturn x_1+2 # ok!!\r\n"
    "我想在apple工作1314天。ありがとう naïve Ünï \u0e01\u0e33 e\u0301a \u2603\u2603 a\u00a0b   $5.00//x "
    "<a href=b>...)\n )\n\n   end 😀 ½② क्या camelCase's HTMLPage It`s `q`\u3105\u3106 12ab a/b/\n/\n"
    "'a l'llama '\u00e9t\u00e9 x\n\n\ny" + "\n" * 3 + " " * 7 + "z 한국어 ㄱㄴ "
)
"""Text that each of the ways splits differently."""


def find_split(name: object) -> Split | None:
    """The way that `tokenizer.ggml.pre` names; `default` if it is missing, None for an unknown name."""
    entry = NAMES.get("default" if name is None or name == "" else str(name))
    return None if entry is None else SPLITS[entry]


def pre_tokenizer(patterns: tuple[str, ...]) -> dict[str, Any]:
    """The patterns as in tokenizer.json, and then the bytes of each piece as characters."""
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in patterns
    ]
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [*splits, to_bytes]}


def split_name(definition: dict[str, Any], name: str) -> str:
    """Name of llama.cpp for the way a tokenizer.json splits text. Raises TokenizerError when it has none."""
    pieces = _pieces(definition.get("pre_tokenizer"), name)
    same = [
        split for split, entry in SPLITS.items() if pieces == _pieces(pre_tokenizer(entry.patterns), split)
    ]
    if not same:
        raise TokenizerError(
            f"{name} splits text in a way that llama.cpp has no name for; "
            "export the model from a folder without tokenizer.json and pass token ids to llama.cpp"
        )
    whole_words = bool(definition.get("model", {}).get("ignore_merges"))
    exact = [split for split in same if SPLITS[split].whole_words == whole_words]
    if not exact and not _all_merged(definition, name):
        raise TokenizerError(
            f"{name} has ignore_merges = {str(whole_words).lower()}, and llama.cpp's {same[0]} has the "
            "opposite, which would give other ids; export the model from a folder without tokenizer.json"
        )
    has_nfc = "NFC" in str(definition.get("normalizer"))
    return min(exact or same, key=lambda split: SPLITS[split].nfc != has_nfc)


def _all_merged(definition: dict[str, Any], name: str) -> bool:
    """Return whether merges make every token, so that looking up whole words changes nothing."""
    plain = {"version": "1.0", "added_tokens": [], "model": {**definition["model"], "ignore_merges": False}}
    tokenizer = definitions.compile_definition(plain, name)
    special = {token["content"] for token in definition["added_tokens"]}
    tokens = [token for token in definition["model"]["vocab"] if token not in special]
    return all(len(encoding.ids) == 1 for encoding in tokenizer.encode_batch_fast(tokens))


def _pieces(pre_tokenizer: Any, name: str) -> list[Any]:
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    tokenizer = definitions.compile_definition(
        {"version": "1.0", "added_tokens": [], "model": empty, "pre_tokenizer": pre_tokenizer}, name
    )
    return [] if tokenizer.pre_tokenizer is None else tokenizer.pre_tokenizer.pre_tokenize_str(PROBE)
