import pytest

from shoestring.serve.routes.deepl.bodies import File, read_multipart, time_text

BODY = (
    b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
    b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xc3\xa4\r\n'
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="\xc3\xa4.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\n\r\n--\x00\xff\r\n\r\n--b--\r\n"
)


def test_a_form_with_a_file_is_read_byte_by_byte():
    fields = read_multipart(BODY, "b")
    assert fields["a"] == ["x", "ä"]
    assert fields["f"] == File("ä.txt", b"\r\n--\x00\xff\r\n")


@pytest.mark.parametrize(
    "data", [b"--b\r\n\r\nx\r\n--b--", b"--b\r\nContent-Disposition: x", b"--b\r\n\xff\r\n\r\n"]
)
def test_a_damaged_form_is_refused(data):
    with pytest.raises(ValueError, match=r"name|decode"):
        read_multipart(data, "b")
    with pytest.raises(ValueError, match="boundary"):
        read_multipart(data, "")


def test_times_are_utc():
    assert time_text(1_500) == "1970-01-01T00:00:01.500000Z"
