"""Small documents of office programs."""

import io
import zipfile

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def run(text, form=""):
    form = f"<w:rPr>{form}</w:rPr>" if form else ""
    return f'<w:r>{form}<w:t xml:space="preserve">{text}</w:t></w:r>'


def archive(**parts):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for name, content in parts.items():
            target.writestr(name.replace("__", "/").replace("_xml", ".xml"), content)
    return file.getvalue()


def docx(paragraphs, head=""):
    """A document; each paragraph is text, or its runs."""
    body = "".join(f"<w:p>{p if p.startswith('<') else run(p)}</w:p>" for p in paragraphs)
    names = f'xmlns:w="{W}" xmlns:x="u:x" x:ignored="y"'
    document = f"{head}<w:document {names}><w:body>{body}</w:body></w:document>"
    return archive(word__document_xml=document, word__styles_xml="<styles/>")
