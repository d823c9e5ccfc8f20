"""Scripts in child processes that may be killed: start one, exchange JSON frames with it, end it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

START_LIMIT_S = 30.0
"""For the interpreter and the library to load; no hostile input runs in that time."""
PASSED_ENVIRONMENT = ("PATH", "HOME", "PYTHONPATH", "PYTHONHOME", "TZ", "LANG", "LC_ALL", "SYSTEMROOT")
"""What a child may know of our environment: no secret is among it."""


def start(script: Path, also_passed: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Run a script of ours, with pipes to its standard input and output."""
    passed = (*PASSED_ENVIRONMENT, *also_passed)
    return subprocess.Popen(
        [sys.executable, "-P", str(script)],  # -P: the script's folder must not shadow other modules
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in passed if name in os.environ},
        start_new_session=True,  # Ctrl-C in the terminal is for us
    )


def frame(message: dict[str, Any]) -> bytes:
    """A message as JSON behind its length in four bytes."""
    data = json.dumps(message).encode()
    return len(data).to_bytes(4, "big") + data


def exchange(
    child: subprocess.Popen[bytes], sent: bytes, *, limit_s: float, max_reply_bytes: int
) -> dict[str, Any] | None:
    """Send bytes and read a frame; None when the child died, was killed by the clock or sent nonsense."""
    assert child.stdin is not None
    assert child.stdout is not None
    clock = threading.Timer(limit_s, child.kill)
    clock.daemon = True
    clock.start()
    try:
        child.stdin.write(sent)
        child.stdin.flush()
        head = child.stdout.read(4)
        size = int.from_bytes(head, "big")
        if len(head) < 4 or size > max_reply_bytes:
            return None
        reply = json.loads(child.stdout.read(size))
        return reply if isinstance(reply, dict) else None
    except (OSError, ValueError):
        return None
    except BaseException:  # interrupted: a late reply must not answer the next request
        end(child)
        raise
    finally:
        clock.cancel()


def end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and close its pipes; nothing happens to one that has ended."""
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # unsent bytes for a child that is gone
                continue
