import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.translate.languages import LISTED_TARGETS, SOURCES, source_language, target_language


def test_codes_are_taken_in_any_case_and_with_regions():
    assert source_language("en-us").code == "EN"
    assert target_language("pt-br").name == "Portuguese (Brazilian)"
    assert target_language("EN").base == target_language("EN-GB").base == "EN"


def test_the_list_shows_english_and_portuguese_by_region():
    codes = {language.code for language in LISTED_TARGETS}
    assert {"EN-GB", "EN-US", "PT-BR", "PT-PT", "DE"} <= codes
    assert not codes & {"EN", "PT"}
    assert all(language.name[0].isupper() for language in SOURCES.values())


@pytest.mark.parametrize("find", [source_language, target_language])
def test_an_unknown_code_is_named(find):
    with pytest.raises(RequestError, match=r"_lang.*not supported: 'XX'"):
        find("xx")
