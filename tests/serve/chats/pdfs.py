"""Small PDFs for tests, good ones and hostile ones."""

import zlib

TEXT = b"BT /F1 12 Tf 10 100 Td (%s) Tj ET"


def pdf(*contents, more=()):
    """A PDF with a page for each content stream; `more` are objects after number 3 + 2 for each page."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(contents)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(contents)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, content in enumerate(contents):
        fonts = b"/Resources << /Font << /F1 3 0 R >> >> /MediaBox [0 0 200 200]"
        objects.append(b"<< /Type /Page /Parent 2 0 R %s /Contents %d 0 R >>" % (fonts, 5 + 2 * number))
        objects.append(content if content.startswith(b"<<") else stream(content))
    objects += more
    data, places = b"%PDF-1.7\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    end = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF"
    return data + head + end % (len(objects) + 1, len(data))


def stream(content, fields=b""):
    """A stream of bytes."""
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(content), fields, content)


def bomb(num_bytes):
    """A stream of spaces that is much longer than it looks."""
    content = zlib.compress(b" " * num_bytes, 9)
    return stream(content, b"/Filter /FlateDecode")


def twice_packed_bomb(num_bytes):
    """The same, packed twice."""
    content = zlib.compress(zlib.compress(b" " * num_bytes, 9), 9)
    return stream(content, b"/Filter [/FlateDecode /FlateDecode]")
