"""E-mail through an SMTP server, when one is configured; otherwise the operator hands out links."""

import asyncio
import logging
import os
import smtplib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.message import EmailMessage

from shoestring.errors import ConfigError

log = logging.getLogger(__name__)

TIMEOUT_S = 15
Send = Callable[[str, str, str], Awaitable[None]]
"""Sends a text: address, subject, text. A failure is in the log, not an error."""


@dataclass(frozen=True)
class MailConfig:
    """An SMTP server."""

    host: str = ""
    """Without a host no mail is sent."""
    port: int = 587
    sender: str = ""
    user: str = ""
    password_env: str = "SHOESTRING_SMTP_PASSWORD"
    """The environment variable with the password."""
    starttls: bool = True


def mailer(config: MailConfig) -> Send | None:
    """A function that sends mail; None without a server. Raises ConfigError for half a configuration."""
    if not config.host:
        return None
    if "@" not in config.sender:
        raise ConfigError("mail.sender is no e-mail address; links are sent in its name")
    password = os.environ.get(config.password_env, "")

    def deliver(message: EmailMessage) -> None:
        with smtplib.SMTP(config.host, config.port, timeout=TIMEOUT_S) as server:
            if config.starttls:
                server.starttls(context=ssl.create_default_context())
            if config.user:
                server.login(config.user, password)
            server.send_message(message)

    async def send(address: str, subject: str, text: str) -> None:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = config.sender, address, subject
        message.set_content(text)
        try:
            await asyncio.to_thread(deliver, message)
        except (OSError, smtplib.SMTPException) as error:
            log.error("a mail could not be sent: %s", type(error).__name__)

    return send
