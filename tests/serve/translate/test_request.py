import pytest
from pydantic import ValidationError

from shoestring.serve.translate.request import DocumentFields, RephraseBody, TranslateBody


def test_a_form_and_json_give_the_same():
    form = {"text": "a", "target_lang": "DE", "ignore_tags": "x, y,", "preserve_formatting": "1"}
    body = TranslateBody.model_validate({**form, "formality": "Less", "outline_detection": "0"})
    assert (body.text, body.ignore_tags, body.formality) == (["a"], ["x", "y"], "less")
    assert (body.preserve_formatting, body.outline_detection) == (True, False)
    assert RephraseBody.model_validate({"text": "a"}).text == ["a"]
    assert DocumentFields.model_validate({"target_lang": "DE", "unknown": 1}).output_format is None


@pytest.mark.parametrize(
    "wrong",
    [{"text": []}, {"text": 3}, {"target_lang": "x" * 21}, {"context": "x" * 4001}, {"tag_handling": "md"}],
)
def test_wrong_fields_are_refused(wrong):
    with pytest.raises(ValidationError):
        TranslateBody.model_validate({"text": "a", "target_lang": "DE", **wrong})
