import datetime
import os
import signal
import socket
import ssl
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shoestring.errors import ConfigError
from shoestring.serve.tls import Tls


def write_certificate(folder, name, password=None):
    """A self-signed certificate for 127.0.0.1 and its key, as cert.pem and key.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(*form))


def name_of(address):
    """The name in the certificate that a server shows, and its answer to a request."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(socket.create_connection(address)) as connection:
        certificate = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True))
        connection.sendall(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head = connection.recv(1000).split(b"\r\n")[0]
    return certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value, head


def test_a_certificate_is_read_again_at_sighup_and_a_wrong_one_is_not(tmp_path):
    write_certificate(tmp_path, "first")
    files = [f"--set=tls_{name}={tmp_path / name}.pem" for name in ("cert", "key")]
    command = [sys.executable, "-c", "from shoestring.cli.main import main; main()", "serve", "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SHOESTRING_LOG": "WARNING"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, *files], env=environment, **pipes) as process:
        try:
            url = process.stdout.readline().split()[-1]
            assert url.startswith("https://")
            address = ("127.0.0.1", int(url.rpartition(":")[2]))
            assert name_of(address) == ("first", b"HTTP/1.1 200 OK")
            write_certificate(tmp_path, "second")
            process.send_signal(signal.SIGHUP)
            assert "was read again" in process.stderr.readline()
            assert name_of(address) == ("second", b"HTTP/1.1 200 OK")
            (tmp_path / "key.pem").write_text("damaged")
            process.send_signal(signal.SIGHUP)
            assert "stays as it was" in process.stderr.readline()
            assert name_of(address) == ("second", b"HTTP/1.1 200 OK")
        finally:
            process.kill()


def test_old_protocols_and_weak_ciphers_are_not_spoken(tmp_path):
    write_certificate(tmp_path, "a")
    context = Tls(tmp_path / "cert.pem", tmp_path / "key.pem").context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    ciphers = context.get_ciphers()
    assert {cipher["strength_bits"] >= 128 for cipher in ciphers} == {True}
    assert not [c["name"] for c in ciphers if c["protocol"] == "TLSv1.2" and "DHE" not in c["name"]]


@pytest.mark.parametrize("damage", ["missing", "other", "password"])
def test_files_that_do_not_fit_are_one_sentence(tmp_path, damage):
    other = tmp_path / "other"
    other.mkdir()
    write_certificate(tmp_path, "a", password=b"secret" if damage == "password" else None)
    write_certificate(other, "b")
    cert = {"missing": tmp_path / "none.pem", "other": other / "cert.pem"}.get(damage, tmp_path / "cert.pem")
    with pytest.raises(ConfigError, match="tls_cert"):
        Tls(cert, tmp_path / "key.pem")
