"""One-time codes of an authenticator app (RFC 6238), and the recovery codes for when it is lost."""

import base64
import secrets

import pyotp

from shoestring.serve.accounts.secret import Secret

STEP_S = 30
NUM_RECOVERY_CODES = 10


def new_nonce() -> str:
    """The part of its codes that an account keeps; they are made of it and the service's secret."""
    return secrets.token_hex(16)


def totp(secret: Secret, nonce: str) -> pyotp.TOTP:
    """The generator of an account's codes."""
    key = bytes.fromhex(secret.digest("one-time codes", nonce))[:20]
    return pyotp.TOTP(base64.b32encode(key).decode(), interval=STEP_S)


def code_step(secret: Secret, nonce: str, code: str, time_s: float, used_step: int | None) -> int | None:
    """The time step that a code belongs to; None for a wrong code, or one whose step or a later one was used.

    The steps before and after the present one count too, since clocks differ.
    """
    generator, present = totp(secret, nonce), int(time_s) // STEP_S
    text = code.replace(" ", "")
    for step in (present - 1, present, present + 1):
        is_new = used_step is None or step > used_step
        if is_new and secrets.compare_digest(generator.generate_otp(step).encode(), text.encode()):
            return step
    return None


def new_recovery_codes() -> list[str]:
    """Codes of 138 bits, each for one use: enough for a plain digest in the database."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    return [
        "-".join("".join(secrets.choice(alphabet) for _ in range(4)) for _ in range(7))
        for _ in range(NUM_RECOVERY_CODES)
    ]
