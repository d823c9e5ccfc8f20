"""QR codes: the path is the code, with its quiet space."""

import re

import segno

from shoestring.serve.accounts.qr import BORDER, qr_path


def test_the_path_is_the_code():
    text = "otpauth://totp/shoestring:ada%40example.com?secret=ABCDEFGH&issuer=shoestring"
    size, path = qr_path(text)
    drawn = [[0] * size for _ in range(size)]
    for x, y, width, back in re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", path):
        assert width == back
        for place in range(int(x), int(x) + int(width)):
            drawn[int(y)][place] += 1
    code = segno.make(text, error="m", micro=False)
    assert drawn == [list(row) for row in code.matrix_iter(border=BORDER)]
    assert re.fullmatch(r"(M\d+ \d+h\d+v1h-\d+z)+", path)
