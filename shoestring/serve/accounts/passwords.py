"""Passwords: rules as in OWASP ASVS 5.0 (6.2), and argon2id in a pool that a flood cannot fill."""

import asyncio
import os
import sys
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from shoestring.serve.backends.errors import RequestError

MIN_LENGTH, MAX_LENGTH = 8, 256
MEMORY_KIB, PASSES = 19_456, 2
"""OWASP's first recommendation for argon2id, with one lane."""
MAX_WAITING, MAX_STRANGERS = 64, 8
"""Passwords that may wait, and of these, ones from browsers that the account does not know."""
NICENESS = 10
"""The threads give way to those that answer requests: a flood of passwords must not slow users down."""


@cache
def common_passwords() -> frozenset[str]:
    """The most common passwords of published lists."""
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    return frozenset(FREQUENCY_LISTS["passwords"])


def check_password(password: str, *, email: str) -> None:
    """Raise RequestError for a password that is too short, too long, common, or made of the address."""
    text = unicodedata.normalize("NFC", password)
    name = email.partition("@")[0].casefold()
    sentence = None
    if len(text) < MIN_LENGTH:
        sentence = f"the password has {len(text)} characters; it needs {MIN_LENGTH}, and 15 are better"
    elif len(text) > MAX_LENGTH:
        sentence = f"the password has {len(text)} characters; at most {MAX_LENGTH} are taken"
    elif text.casefold() in common_passwords():
        sentence = "this password is on the lists that attackers try first; choose another"
    elif (
        len(set(text)) < 4 or (len(name) >= 4 and name in text.casefold()) or "shoestring" in text.casefold()
    ):
        sentence = "this password is easy to guess; choose another"
    if sentence:
        raise RequestError("invalid", sentence, field="password")


class Passwords:
    """Hashes of passwords, made and checked on threads of their own. Use it on one event loop."""

    def __init__(self, num_threads: int = 1) -> None:
        self._hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=1)
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="argon2", initializer=_give_way)
        self._num_waiting = 0
        self._nobody = self._hasher.hash("nobody has this password")

    async def hash(self, password: str, *, is_stranger: bool = False) -> str:
        """The hash of a password. Raises RequestError when too many wait."""
        most = MAX_STRANGERS if is_stranger else MAX_WAITING
        return str(await self._run(most, self._hasher.hash, _normal(password)))

    async def fits(self, password: str, password_hash: str | None, *, is_stranger: bool = False) -> bool:
        """Return whether a password has a hash. Without a hash it takes as long, so that nobody learns of it.

        Raises RequestError when too many wait.
        """
        most = MAX_STRANGERS if is_stranger else MAX_WAITING
        fits = bool(await self._run(most, self._verify, password_hash or self._nobody, _normal(password)))
        return fits and password_hash is not None

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, most: int, *call: object) -> object:
        if self._num_waiting >= most:
            raise RequestError("overloaded", "too many people sign in now; try again", retry_after_s=5)
        self._num_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, *call)  # type: ignore[arg-type]
        finally:
            self._num_waiting -= 1


def _give_way() -> None:
    """Lower the priority of this thread, where threads have one of their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _normal(password: str) -> str:
    """The same bytes for the same characters, whatever keyboard they come from; at most MAX_LENGTH."""
    return unicodedata.normalize("NFC", password)[: MAX_LENGTH + 1]
