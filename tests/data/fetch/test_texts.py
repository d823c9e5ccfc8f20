import gzip
import io
import tarfile
import zipfile

import pytest

from shoestring.data.fetch import texts
from shoestring.data.fetch.texts import debian_texts, safe_name, wheel_texts

LONG = "A line of text that is long enough to be kept.\n" * 3


def wheel(**files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return zipfile.ZipFile(data)


def package(files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("./usr/share/doc/x/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    data.seek(0)
    return data


def test_a_wheel_gives_source_manuals_and_licenses():
    files = {
        "p/b.py": LONG,
        "p/a.pyi": LONG,
        "p/tests/test_b.py": LONG,
        "p/data.json": LONG,
        "p/short.py": "x = 1\n",
        "p/latin.py": LONG.encode() + b"\xe9",
        "p/binary.txt": LONG + "\0",
        "p-1.dist-info/licenses/LICENSE": LONG,
        "../outside.py": LONG,
        "/absolute.py": LONG,
    }
    assert list(wheel_texts(wheel(**files))) == [
        ("p-1.dist-info/licenses/LICENSE.txt", LONG),
        ("p/a.pyi.txt", LONG),
        ("p/b.py", LONG),
    ]


def test_a_debian_package_gives_manuals_as_text():
    doc = "./usr/share/doc/x"
    files = {
        f"{doc}/guide.txt.gz": gzip.compress(LONG.encode()),
        f"{doc}/page.html": f"<h1>Title</h1><p>{LONG}</p>".encode(),
        f"{doc}/copyright": LONG.encode(),
        f"{doc}/broken.txt.gz": b"not gzip, though it is called so, and long enough to be read as a text",
        f"{doc}/picture.png": LONG.encode(),
        "./../../etc/evil.txt": LONG.encode(),
    }
    found = dict(debian_texts(package(files)))
    assert found.keys() == {
        f"usr/share/doc/x/{name}" for name in ("guide.txt", "page.html.txt", "copyright.txt")
    }
    assert found["usr/share/doc/x/guide.txt"] == LONG
    assert found["usr/share/doc/x/page.html.txt"].startswith("Title\n\nA line of text")


def test_lines_of_most_pages_are_their_menu(monkeypatch):
    monkeypatch.setattr(texts, "MENU_PAGES", 3)
    pages = {f"./d/{n}.html": f"<p>Home of the menu</p><p>Page {n}. {LONG}</p>".encode() for n in range(5)}
    for n, (_, text) in enumerate(debian_texts(package(pages))):
        assert "menu" not in text
        assert f"Page {n}." in text


def test_a_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(texts, "FILE_BYTES", 100_000)
    bomb = gzip.compress(b"a" * 50_000_000)
    assert list(debian_texts(package({"./d/bomb.txt.gz": bomb, "./d/big.txt": b"a" * 100_001}))) == []
    assert list(wheel_texts(wheel(**{"p/bomb.py": "a" * 1_000_000}))) == []


@pytest.mark.parametrize("name", ["../a.py", "/a.py", "a/../../b.py", "C:/a.py", "", "."])
def test_names_stay_in_their_folder(name):
    assert safe_name(name) is None
