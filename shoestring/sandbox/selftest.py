"""The sandbox's self-test: programs that try to break out of it, and do no harm if they succeed.

They try effects, not mechanisms: a kernel, a container or a security module may forbid each of these in its
own way, and may also claim a boundary that it does not enforce.
"""

import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from shoestring.sandbox.process import Limits, Sandbox

ESCAPES = """
import ctypes, json, os, platform, socket
outside = json.load(open(0))
libc = ctypes.CDLL(None, use_errno=True)
calls = {"start a program": (59, 221), "trace processes": (101, 117), "make namespaces": (272, 97),
    "enter namespaces": (308, 268), "mount": (165, 40), "read other processes' memory": (310, 270),
    "load programs into the kernel": (321, 280), "use io_uring": (425, 425), "use kernel keys": (250, 219),
    "make shared memory": (29, 194), "open sockets": (41, 198)}

def attempt(name, act):
    try:
        if act():
            print(name)
    except OSError:
        pass

def reaches_kernel(number):
    # With these arguments a call that is let through fails in another way, or does nothing.
    return libc.syscall(number, -1, 0, 0, 0, 0, 0) >= 0 or ctypes.get_errno() not in (1, 38)

def connects(family, address):
    with socket.socket(family) as end:
        end.settimeout(1)
        end.connect(address)
    return True

attempt("read files outside", lambda: open(outside["secret"]).read())
attempt("see files outside", lambda: os.stat(outside["secret"]))
attempt("write files outside", lambda: open(outside["written"], "w").write("x"))
attempt("write into Python's folder", lambda: os.access(os.path.dirname(os.__file__), os.W_OK))
attempt("reach the network", lambda: connects(socket.AF_INET, ("127.0.0.1", outside["port"])))
attempt("reach local services", lambda: connects(socket.AF_UNIX, outside["service"]))
attempt("see other processes", lambda: os.getpid() != 2)
attempt("see the environment", lambda: len(os.environ))
for fd in range(4, 300):
    attempt("use open files", lambda: os.fstat(fd))
for name, numbers in calls.items():
    attempt(name, lambda: reaches_kernel(numbers[platform.machine() != "x86_64"]))
"""
PROCESSES = """
import os, time
count, parent = 1, os.getpid()
try:
    while count < 64 and os.getpid() == parent:
        count += bool(os.fork())
except OSError:
    pass
if os.getpid() != parent:
    time.sleep(1)
    os._exit(0)
print("use more processes than allowed" if count > 20 else "")
"""
MEMORY = """
import os, time
for _ in range(2):
    os.fork()
held = bytearray(48 << 20)
time.sleep(1)
"""
FILES = """
written = 0
try:
    for number in range(40):
        with open(f"/tmp/sandbox-{number}", "wb") as file:
            written += file.write(bytes(1 << 20))
except OSError:
    pass
print("use more disk than allowed" if written > 16 << 20 else "")
"""
FLOOD = "print('x' * (1 << 20))"
SPIN = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass"
DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(9)
    os._exit(0)
"""
ECHO = "print(input())"
WALL_S = 20.0
"""The programs end by themselves much sooner; a busy machine is slow, not open."""


def weaknesses(sandbox: Sandbox) -> list[str]:
    """Sentences about what programs can do and must not; none when the sandbox is a boundary."""
    if not Path("/proc/self/task", str(os.getpid()), "children").exists():
        return ["the kernel does not list a process's children (CONFIG_PROC_CHILDREN)"]
    problems = []
    with _outside() as outside:
        for program in (ESCAPES, PROCESSES, FILES):
            outcome = sandbox.run(program, json.dumps(outside), limits=Limits(wall_s=WALL_S, processes=8))
            problems += [f"programs can {line}" for line in dict.fromkeys(outcome.stdout.split("\n")) if line]
            if outcome.status != "ok":
                problems.append(f"a test program ended with {outcome.status} {outcome.code}")
    problems += _missed_limits(sandbox, Limits(wall_s=WALL_S, memory_bytes=64 << 20, file_bytes=1 << 20))
    sandbox.run(DAEMON)
    if not _is_idle(sandbox.pid):
        problems.append("processes survive their program")
    if sandbox.run(ECHO, "canary\n").stdout != "canary\n":
        problems.append("an ordinary program does not run")
    return problems


def _missed_limits(sandbox: Sandbox, limits: Limits) -> Iterator[str]:
    for program, limit, wall_s in (
        (MEMORY, "memory", 1.5),
        (FLOOD, "output", 1.5),
        (SPIN, "timeout", 0.2),
    ):
        outcome = sandbox.run(program, limits=replace(limits, wall_s=wall_s))
        if outcome.status != limit:
            yield f"programs are not stopped at the limit for {limit} ({outcome.status})"


def _is_idle(pid: int) -> bool:
    """Return whether a process has no children, or has none within a second."""
    for _ in range(100):
        if not Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return True
        time.sleep(0.01)
    return False


@contextmanager
def _outside() -> Iterator[dict[str, Any]]:
    """Things that a program outside the sandbox could reach: a file, a folder and two listening sockets."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        (folder / "secret").write_text("secret")
        network = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        service = stack.enter_context(socket.socket(socket.AF_UNIX))
        service.bind(f"\0shoestring-canary-{os.getpid()}-{time.monotonic_ns()}")
        service.listen()
        yield {
            "secret": str(folder / "secret"),
            "written": str(folder / "written"),
            "port": network.getsockname()[1],
            "service": service.getsockname().decode(),
        }
