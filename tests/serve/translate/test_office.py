import io
import re
import zipfile

import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.translate import office
from shoestring.serve.translate.office import OfficeLayout
from tests.serve.translate.office_files import archive, docx, run

BOLD = "<w:b/>"
A = 'xmlns:a="u:a"'


def part(data, name="word/document.xml"):
    return zipfile.ZipFile(io.BytesIO(data)).read(name).decode()


def texts(layout):
    return [unit.text for unit in layout.units]


def test_a_paragraph_is_one_unit_and_formats_are_marks():
    parts = run("A ") + run("bold", BOLD) + "<w:proofErr/>" + run(" wor") + run("d.", '<w:lang w:val="en"/>')
    layout = OfficeLayout(docx(["One.", parts, "12"]), "docx")
    assert texts(layout) == ["One.", "A <t2>bold</t2> word."]
    out = part(layout.render(["Eins.", "Ein <t2>fettes</t2> & <Wort>."]))
    assert re.findall(r"<w:t[^>]*>([^<]*)", out) == ["Eins.", "Ein ", "fettes", " &amp; &lt;Wort&gt;.", "12"]
    assert 'x:ignored="y"' in out
    assert out.count("<w:b/>") == 1


def test_what_is_no_text_stays_where_it_is():
    parts = run("before") + "<w:r><w:tab/></w:r>" + f"<w:hyperlink>{run('link')}</w:hyperlink>" + run("after")
    layout = OfficeLayout(docx([parts]), "docx")
    assert texts(layout) == ["before", "link", "after"]
    out = part(layout.render(["A", "B", "C"]))
    assert re.findall(r">([ABC])<|(<w:tab/>|<w:hyperlink>|</w:hyperlink>)", out) == [
        ("A", ""),
        ("", "<w:tab/>"),
        ("", "<w:hyperlink>"),
        ("B", ""),
        ("", "</w:hyperlink>"),
        ("C", ""),
    ]


def test_slides_and_tables():
    slide = f"<a:x {A}><a:p><a:r><a:rPr lang='en'/><a:t>Hello</a:t></a:r><a:endParaRPr/></a:p></a:x>"
    layout = OfficeLayout(archive(ppt__slides__slide1_xml=slide), "pptx")
    assert texts(layout) == ["Hello"]
    assert "<a:t>Hallo</a:t>" in part(layout.render(["Hallo"]), "ppt/slides/slide1.xml")
    table = "<sst><si><t>One</t></si><si><r><rPr><b/></rPr><t>Two</t></r><r><t> three</t></r></si></sst>"
    layout = OfficeLayout(archive(xl__sharedStrings_xml=table), "xlsx")
    assert texts(layout) == ["One", "<t1>Two</t1> three"]
    assert ">Eins</t>" in part(layout.render(["Eins", "<t1>Zwei</t1> drei"]), "xl/sharedStrings.xml")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        archive(other="x"),
        archive(word__document_xml="<a>"),
        docx(["x"], '<!DOCTYPE a [<!ENTITY e "x">]>'),
        docx(["one"])[:-30],
    ],
)
def test_damaged_files_are_refused(data):
    with pytest.raises(RequestError, match="Invalid file"):
        OfficeLayout(data, "docx")


def test_a_file_that_grows_when_it_is_unpacked_is_refused(monkeypatch):
    monkeypatch.setattr(office, "MAX_BYTES", 100)
    with pytest.raises(RequestError, match="unpacked"):
        OfficeLayout(docx(["x" * 1000]), "docx")
