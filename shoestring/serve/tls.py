"""TLS by files: a certificate and its key, read again without a restart."""

import logging
import ssl
from pathlib import Path

from shoestring.errors import ConfigError

log = logging.getLogger(__name__)


class Tls:
    """The TLS context of a listener. New connections get the certificate that was read last."""

    def __init__(self, cert: str | Path, key: str | Path) -> None:
        """Raises ConfigError for files that are missing or do not belong together."""
        self._cert, self._key = cert, key
        self.context = self._read()

    def reload(self) -> None:
        """Read the files again; when they are wrong the certificate stays, and the log says why."""
        try:
            self._read()  # into another context first: a wrong key would leave this one with neither
            self.context.load_cert_chain(self._cert, self._key)
        except (ConfigError, OSError) as error:
            log.error("the certificate stays as it was: %s", error)
        else:
            log.warning("the certificate %s was read again", self._cert)

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._cert, self._key, password=_refuse)
        except ssl.SSLError as error:
            reason = error.reason or "the key has a password"
            raise ConfigError(f"tls_cert {self._cert} and tls_key {self._key}: {reason}") from None
        except OSError as error:
            raise ConfigError(f"tls_cert {self._cert} and tls_key {self._key}: {error.strerror}") from None
        return context


def _refuse() -> str:
    """Nobody is there to type a password."""
    return ""
