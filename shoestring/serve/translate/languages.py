"""Languages of translation: their codes as DeepL has them, their names, and the forms that they have."""

from dataclasses import dataclass

from shoestring.serve.backends.errors import RequestError


@dataclass(frozen=True)
class Language:
    """A language, or one of its regional forms."""

    code: str
    """As in EN or EN-GB."""
    name: str
    """In English."""
    has_formality: bool = False
    """It addresses people in a formal and an informal way."""

    @property
    def base(self) -> str:
        """The code without the region."""
        return base_code(self.code)


_NAMES = (
    "AR Arabic, BG Bulgarian, BN Bengali, CA Catalan, CS Czech, DA Danish, DE German, EL Greek, EN English, "
    "ES Spanish, ET Estonian, FA Persian, FI Finnish, FR French, GA Irish, HE Hebrew, HI Hindi, HR Croatian, "
    "HU Hungarian, ID Indonesian, IS Icelandic, IT Italian, JA Japanese, KO Korean, LT Lithuanian, "
    "LV Latvian, MS Malay, NB Norwegian (bokmål), NL Dutch, PL Polish, PT Portuguese, RO Romanian, "
    "RU Russian, SK Slovak, SL Slovenian, SR Serbian, SV Swedish, SW Swahili, TA Tamil, TH Thai, "
    "TL Tagalog, TR Turkish, UK Ukrainian, UR Urdu, VI Vietnamese, ZH Chinese"
)
_REGIONS = (
    "EN-GB English (British), EN-US English (American), ES-419 Spanish (Latin American), "
    "PT-BR Portuguese (Brazilian), PT-PT Portuguese (European), ZH-HANS Chinese (simplified), "
    "ZH-HANT Chinese (traditional)"
)
FORMAL = ("DE", "ES", "FR", "IT", "JA", "NL", "PL", "PT", "RU")
"""Languages with formal and informal address."""
WITH_REGION = ("EN", "PT")
"""Targets that are shown by their regional forms alone, as in DeepL's list; the plain code is taken too."""


def base_code(code: str) -> str:
    """The code of a language without its region, in capitals."""
    return code.upper().partition("-")[0]


def _read(names: str) -> dict[str, Language]:
    pairs = (name.split(" ", 1) for name in names.split(", "))
    return {code: Language(code, name, base_code(code) in FORMAL) for code, name in pairs}


SOURCES = _read(_NAMES)
"""Languages to translate from, by code."""
TARGETS = SOURCES | _read(_REGIONS)
"""Languages to translate into, by code."""
LISTED_TARGETS = [language for code, language in sorted(TARGETS.items()) if code not in WITH_REGION]


def source_language(code: str) -> Language:
    """The language of a text, by its code in any case. Raises RequestError for one that is not known."""
    return _find(SOURCES, base_code(code), "source_lang")


def target_language(code: str) -> Language:
    """The language to translate into. Raises RequestError for one that is not known."""
    return _find(TARGETS, code.upper(), "target_lang")


def _find(languages: dict[str, Language], code: str, field: str) -> Language:
    if code not in languages:
        sentence = f"Value for '{field}' not supported: {code[:20]!r}; GET /v2/languages lists the codes"
        raise RequestError("invalid", sentence, field=field)
    return languages[code]
