import random
import time

import pytest

from shoestring.serve.translate.markup import TagRules, read_markup

HTML = TagRules("html")


def texts(layout):
    return [unit.text for unit in layout.units]


def test_inline_tags_are_marks_and_blocks_end_a_line():
    source = "<div>\n <p>A <b>short</b> one &amp; <br>so <code>x=1</code></p><p>Next</p>\n</div>"
    layout = read_markup(source, HTML)
    assert texts(layout) == ["A <t2>short</t2> one & <t6/>so <t8/>", "Next"]
    assert layout.render(texts(layout)) == source
    moved = layout.render(["<t8/> <t2>kurz</t2> <t6/>< x", "Weiter"])
    assert moved == ("<div>\n <p><code>x=1</code> <b>kurz</b> <br>&lt; x</p><p>Weiter</p>\n</div>")


def test_what_must_not_be_translated_stays():
    source = (
        '<p translate="no">Eins</p><p class="a notranslate">Zwei</p><pre>var a = "drei"</pre><!-- vier -->'
    )
    assert texts(read_markup(source, HTML)) == []
    assert read_markup(source, HTML).render([]) == source
    xml = read_markup("<a>One <x>two <x>three</x></x> four</a><x>open", TagRules("xml", verbatim=["x"]))
    assert texts(xml)[0] == "One <t2/> four"


def test_the_outline_of_xml_is_found_or_told():
    source = "<doc><title>Head</title><par>It <i>is</i> so.</par><par><i>All</i></par></doc>"
    assert texts(read_markup(source, TagRules("xml"))) == ["Head", "It <t2>is</t2> so.", "All"]
    rules = TagRules("xml", finds_outline=False, splitting=["par"])
    assert texts(read_markup(source, rules))[0] == "Head"
    rules = TagRules("xml", non_splitting=["title", "doc", "par"])
    assert len(texts(read_markup(source, rules))) == 1


def test_text_that_looks_like_a_mark_is_no_mark():
    layout = read_markup("<p>Write &lt;t1&gt; <b>here</b> or there</p>", HTML)
    assert texts(layout) == ["Write <t1> <m2>here</m2> or there"]
    assert "&lt;t1&gt; <b>here</b>" in layout.render(texts(layout))


def test_entities_of_xml_are_few():
    layout = read_markup("<a>A &lt; B &copy; &#228;</a>", TagRules("xml"))
    assert texts(layout) == ["A < B &copy; ä"]
    assert layout.render(texts(layout)) == "<a>A &lt; B &amp;copy; ä</a>"


@pytest.mark.parametrize("kind", ["html", "xml"])
def test_no_tag_is_lost_however_broken_the_document_is(kind):
    rng = random.Random(1)
    parts = [
        "<b>",
        "</b>",
        "<p>",
        "</p>",
        "<br/>",
        "<i x='>'>",
        "</i>",
        "<!-- c -->",
        "<!--",
        "<",
        ">",
        "w ",
        " ",
    ]
    for _ in range(500):
        source = "".join(rng.choice(parts) for _ in range(rng.randint(1, 20)))
        layout = read_markup(source, TagRules(kind))
        out = layout.render(texts(layout))
        for tag in ("<b>", "</b>", "<p>", "</p>", "<br/>", "<i x='>'>", "</i>"):
            assert out.count(tag) == source.count(tag), source


@pytest.mark.parametrize("part", ["<a ", "<!--", '<a "', "<a '\"", "<b>", "<b>x", "</b>x", "<p><b>x", "&lt;"])
def test_hostile_documents_are_read_fast(part):
    begin = time.process_time()
    layout = read_markup(part * 30_000, HTML)
    layout.render(texts(layout))
    assert time.process_time() - begin < 5
