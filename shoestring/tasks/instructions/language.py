"""The language of a text, by its script and, where several languages share one, by words and letters of each.

A small rule without a library: a text of a few sentences is told reliably, one without any of the words below
is not, and then every language of its script is possible. No rule here is random, as langdetect's is.
"""

import re
from collections import Counter

# The script of a letter by its block, and the languages of IFEval that are written in it.
SCRIPTS = (
    ("latin", r"A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ", "en es pt fr de it pl vi sw fi nl sv da no ro cs hu tr id"),
    ("cyrillic", r"Ѐ-ӿ", "ru uk bg"),
    ("arabic", r"\u0600-\u06ff\u0750-\u077f", "ar fa ur"),
    ("devanagari", r"\u0900-\u097f", "hi mr ne"),
    ("bengali", r"\u0980-\u09ff", "bn"),
    ("gurmukhi", r"\u0a00-\u0a7f", "pa"),
    ("gujarati", r"\u0a80-\u0aff", "gu"),
    ("tamil", r"\u0b80-\u0bff", "ta"),
    ("telugu", r"\u0c00-\u0c7f", "te"),
    ("kannada", r"\u0c80-\u0cff", "kn"),
    ("malayalam", r"\u0d00-\u0d7f", "ml"),
    ("thai", r"\u0e00-\u0e7f", "th"),
    ("kana", r"\u3040-\u30ff", "ja"),
    ("hangul", r"\uac00-\ud7af\u1100-\u11ff", "ko"),
    ("han", r"\u4e00-\u9fff", "zh ja"),
    ("hebrew", r"\u0590-\u05ff", "he"),
    ("greek", r"\u0370-\u03ff", "el"),
)
WORDS = {
    "en": "the and of to is in that it for with you was are this be have not on as at by from or but they we",
    "es": "el la los las y que en un una es por para con no se del al lo como más su pero está muy",
    "pt": "o os as e que em um uma é por para com não se do da dos das ao como mais seu mas está muito você",
    "fr": "le la les et que en un une est pour avec ne pas se du des au ce dans qui sur plus vous nous il je",
    "de": "der die das und ist in zu den von mit nicht ein eine für auf sich es dem des wir sie ich auch wie",
    "it": "il lo la gli le e che di in un una è per con non si del della al come più ma sono questo anche",
    "pl": "i w na z do nie się że jest to jak po co ale od dla przez tak są był który oraz jego",
    "vi": "và của là có không được một trong cho với các những này người để khi đã tôi bạn như",
    "sw": "na ya wa kwa ni katika la za cha kuwa hii lakini pia au yake watu sana kama huu",
    "fi": "ja on ei se että oli hän mutta tai ovat kun myös kuin joka minä sinä tämä niin olla",
    "nl": "de het een en van is dat in te op niet met zijn voor aan er maar ook als bij ik je",
    "sv": "och att det som en är på av för med den till inte har om ett jag men var sig",
    "da": "og at det som en er på af for med den til ikke har om et jeg men var sig",
    "no": "og at det som en er på av for med den til ikke har om et jeg men var seg",
    "ro": "și de la în cu nu pe că este un o din sunt care mai pentru ce dar",
    "cs": "a je v na se že to s z do pro ale jsem jako jsou by také který",
    "hu": "a az és hogy nem is egy meg van de ez ha már csak vagy mint",
    "tr": "ve bir bu için ile çok da de ne olarak daha gibi ama var değil mi",
    "id": "yang dan di dengan untuk tidak ini itu dari dalam akan pada adalah ke juga saya",
    "hi": "है के में की को और से का हैं यह पर नहीं कि भी एक",
    "mr": "आहे आणि च्या मध्ये ते हे की या होते आहेत नाही एक मी",
    "ne": "छ र को मा यो पनि छन् हो लागि गर्न भने हुन्छ",
}
# Letters that a language has and the others of its script have not.
LETTERS = {"uk": "іїєґ", "ru": "ыэё", "bg": "ъщ", "fa": "پچژگ", "ur": "ٹڈڑےں"}
LATIN_WORD = re.compile(r"[^\W\d_]+")
DEVANAGARI_WORD = re.compile(r"[\u0900-\u097f]+")
MOST_CHARS = 20_000
HEADROOM = 0.7
"""A language whose words are at least this share of the best one's is possible too."""


def languages(text: str) -> set[str]:
    """Codes (ISO 639-1) of the languages that a text may be in; empty for a text without letters."""
    text = text[:MOST_CHARS]
    counts = Counter({name: len(re.findall(f"[{block}]", text)) for name, block, _ in SCRIPTS})
    script, most = counts.most_common(1)[0]
    if not most:
        return set()
    if script in ("han", "kana"):
        return {"ja"} if counts["kana"] > 0.1 * most else {"zh"}
    codes = set(next(codes for name, _, codes in SCRIPTS if name == script).split())
    if script in ("cyrillic", "arabic"):
        return _by_letters(text, codes)
    return _by_words(text.lower(), codes, DEVANAGARI_WORD if script == "devanagari" else LATIN_WORD)


def is_in(text: str, code: str) -> bool:
    """Return whether a text may be in a language; a text without letters may be in any."""
    possible = languages(text)
    return not possible or code.split("-")[0].lower() in possible


def _by_letters(text: str, codes: set[str]) -> set[str]:
    counts = {code: sum(text.count(letter) for letter in LETTERS.get(code, "")) for code in codes}
    if "uk" in codes and counts["ru"] == counts["uk"] == 0 and counts["bg"]:
        return {"bg"}
    counts.pop("bg", None)
    best = max(counts, key=lambda code: counts[code])
    return {best} if counts[best] else {"ar"} if "ar" in codes else codes


def _by_words(text: str, codes: set[str], word: re.Pattern[str]) -> set[str]:
    """The languages whose most frequent words are there most; all of them when there is none."""
    words = Counter(word.findall(text))
    counts = {code: sum(words[w] for w in WORDS[code].split()) for code in codes if code in WORDS}
    most = max(counts.values(), default=0)
    return {code for code, count in counts.items() if count >= HEADROOM * most} if most else codes
