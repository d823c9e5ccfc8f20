from hypothesis import given
from hypothesis import strategies as st

from shoestring.data.fetch.html_text import html_text

PAGE = """<!doctype html><html><head><title>T</title><style>p {}</style></head><body>
<nav><ul><li>Home<li>About</ul></nav>
<h1>Cutting &amp; pasting</h1><p>One   two
three <b>four</b>.</p><ul><li>first<li>second <i>item</i></ul>
<pre>def f():
    return  1
</pre><script>if (a < b) run()</script><p>End.</p><footer>made by</footer></body></html>"""


def test_a_page_reads_as_it_looks():
    assert html_text(PAGE) == (
        "Cutting & pasting\n\nOne two three four.\n\n* first\n* second item\n\n"
        "def f():\n    return  1\n\nEnd.\n"
    )


@given(
    st.lists(
        st.sampled_from(
            ["<p>", "</p>", "<nav>", "</nav>", "<pre>", "</pre>", "<li>", "a b", "<", "&lt;", "\n"]
        )
    )
)
def test_broken_pages_give_some_text(parts):
    text = html_text("".join(parts))
    assert text.endswith("\n")
    assert "\n\n\n" not in text
    assert text.count("a") <= "".join(parts).count("a")
