"""Child processes that run a script and may be killed: start, exchange JSON messages, end."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

START_LIMIT_S = 30.0
"""Time for the interpreter and a library to load; no untrusted input is processed in this time."""
ENVIRONMENT = ("PATH", "HOME", "PYTHONPATH", "PYTHONHOME", "TZ", "LANG", "LC_ALL", "SYSTEMROOT")
"""Environment variables that a child gets; none of them is a secret."""


def start(
    script: Path, more_environment: Sequence[str] = (), *, shows_errors: bool = False
) -> subprocess.Popen[bytes]:
    """Run a Python script with pipes to its standard input and output; `shows_errors` lets stderr through."""
    names = (*ENVIRONMENT, *more_environment)
    return subprocess.Popen(
        [sys.executable, "-P", str(script)],  # -P: the script's folder must not hide other modules
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if shows_errors else subprocess.DEVNULL,
        env={name: os.environ[name] for name in names if name in os.environ},
        start_new_session=True,  # Ctrl-C in the terminal is for the parent
    )


def frame(message: dict[str, Any]) -> bytes:
    """Bytes of a message: its length in four bytes, then JSON."""
    data = json.dumps(message).encode()
    return len(data).to_bytes(4, "big") + data


def exchange(
    child: subprocess.Popen[bytes], data: bytes, *, limit_s: float, max_reply_bytes: int
) -> dict[str, Any] | None:
    """Send bytes and read the reply; None when the child ended, took too long or sent something else."""
    assert child.stdin is not None
    assert child.stdout is not None
    timer = threading.Timer(limit_s, child.kill)
    timer.daemon = True
    timer.start()
    try:
        child.stdin.write(data)
        child.stdin.flush()
        head = child.stdout.read(4)
        size = int.from_bytes(head, "big")
        if len(head) < 4 or size > max_reply_bytes:
            return None
        reply = json.loads(child.stdout.read(size))
        return reply if isinstance(reply, dict) else None
    except (OSError, ValueError):
        return None
    except BaseException:  # interrupted: a late reply must not be read as that of the next request
        end(child)
        raise
    finally:
        timer.cancel()


def end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and close its pipes; does nothing if it has ended."""
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # bytes in the buffer for a child that has ended
                continue
