"""DeepL's own client against the server whose root URL is the argument.

The model there knows sums only, so what it says is nonsense; its form is right all the same.
"""

import io
import re
import sys
from pathlib import Path

import deepl
from deepl.api_data import MultilingualGlossaryDictionaryEntries

ROOT = sys.argv[1]
client = deepl.DeepLClient("none", server_url=ROOT)


def refusal(work, *arguments, **values):
    """The sentence of an error."""
    try:
        work(*arguments, **values)
    except deepl.DeepLException as error:
        return str(error)
    raise AssertionError("an error was due")


assert "EN" in {language.code for language in client.get_source_languages()}
assert {"DE", "EN-GB", "PT-BR"} <= {language.code for language in client.get_target_languages()}
assert client.get_glossary_languages()
print("languages: passed")

before = client.get_usage().character.count
text = "Use <b>3</b>, 5 and <i>seven</i> to make <x>twenty-two</x>."
options = {"target_lang": "DE", "tag_handling": "xml", "ignore_tags": ["x"]}
result = client.translate_text(text, formality="more", context="A game.", **options)
assert result.billed_characters == len(text)
assert re.fullmatch("[A-Z]{2}", result.detected_source_lang)
assert sorted(re.findall("<[^>]*>", result.text)) == sorted(re.findall("<[^>]*>", text)), result.text
assert "<x>twenty-two</x>" in result.text
one, two = client.translate_text(["1 + 2", "Make 22."], source_lang="EN", target_lang="EN-US")
assert one.text == "1 + 2"
assert two.text
assert client.get_usage().character.count == before + len(text) + len("1 + 2Make 22.")
print("texts: passed")

entries = {"make 22": "ergib 22"}
glossary = client.create_multilingual_glossary(
    "check", [MultilingualGlossaryDictionaryEntries("EN", "DE", entries)]
)
own = client.translate_text("Make 22", source_lang="EN", target_lang="DE", glossary=glossary)
assert own.text == "ergib 22"
assert any(each.name == "check" for each in client.list_multilingual_glossaries())
client.delete_multilingual_glossary(glossary)
assert refusal(client.get_multilingual_glossary, glossary.glossary_id).startswith("Glossary not found")
print("glossaries: passed")

Path("in.html").write_text("<h1>Make 22</h1><p>Use <b>3</b>.</p>")
status = client.translate_document_from_filepath("in.html", "out.html", source_lang="EN", target_lang="DE")
assert status.done, status
assert re.fullmatch(r"<h1>.+</h1><p>.*<b>3</b>.*</p>", Path("out.html").read_text())
pdf = {"filename": "a.pdf", "target_lang": "DE"}
assert "Invalid file" in refusal(client.translate_document, b"x", io.BytesIO(), **pdf)
print("documents: passed")

assert "target_lang" in refusal(client.translate_text, "x", target_lang="XX")
print("errors: passed")
