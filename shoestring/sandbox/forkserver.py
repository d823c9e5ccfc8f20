"""The process inside the sandbox: an interpreter with its modules loaded that forks once for every program.

There are four processes, and each trusts only those before it. The *server* has entered the namespaces and
the file tree; it never reads a job, so its forks know nothing of other programs. For every job it forks a
*guard*, which reads the job, watches clock, memory and output, and writes the reply. The guard forks *init*,
the first process of new process and mount namespaces: when it ends, so does everything in them. Init gives up
its privileges and forks the *program*, which inherits no way back.
"""

import _sitebuiltins
import atexit
import builtins
import fcntl
import gc
import importlib
import importlib.machinery
import json
import os
import select
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any, NoReturn

from shoestring.sandbox import isolation

# Loaded once: modules that link to libraries outside the standard folder, and those that programs often use.
PRELOADED_MODULES = """
array ast base64 bisect bz2 calendar cmath collections contextlib copy csv ctypes dataclasses datetime decimal
enum fractions functools hashlib heapq io itertools lzma math numbers operator queue random re secrets
statistics string struct textwrap threading time traceback typing uuid zlib"""
PROGRAM = "/tmp/main.py"
MAX_JOB_BYTES = 32 << 20
CHECK_EVERY_S = 0.01
OVERHEAD_PROCESSES = 4
"""Server, guard, init and the program's first process: the kernel may count all of them for one user."""
RESULT_FD, CONTROL_FD = 3, 4


def main() -> None:
    """Set up the boundary, then run jobs from standard input until it is closed."""
    sys.path.pop(0)  # programs have no use for our package
    for name in PRELOADED_MODULES.split():
        importlib.import_module(name)
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    folders = [folder for folder in sys.path if os.path.isdir(folder)]
    folders = [f for f in folders if not any(f.startswith(other + "/") for other in folders)]
    foreign = [f"{folder}/{name}" for folder in folders for name in ("site-packages", "dist-packages")]
    try:
        isolation.enter_namespaces()
        isolation.enter_tree(folders, [folder for folder in foreign if os.path.isdir(folder)])
    except (OSError, KeyError) as error:
        reply({"refused": str(error)})
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.clear()
    gc.collect()
    gc.freeze()
    reply({"ready": True, "landlock": isolation.landlock_version()})
    job = serve(proc, folders)
    if job is not None:
        finish(run, job)


def serve(proc: int, folders: list[str]) -> dict[str, Any] | None:
    """Fork a guard for every job. Returns None at the end, and in each program's own process its job."""
    while _has_job():
        guard = os.fork()
        if guard == 0:
            isolation.die_with_parent()
            return start(_read_job(), proc, folders)
        if os.waitpid(guard, 0)[1] != 0:  # it may have read half of the job
            return None
    return None


def start(job: dict[str, Any], proc: int, folders: list[str]) -> dict[str, Any]:
    """Fork init from the guard and the program from init; guard and init end here, the program returns."""
    isolation.call("unshare", isolation.NEW_PIDS | isolation.NEW_MOUNTS)
    user = isolation.NOBODY if isolation.is_nobody_mapped(proc) else 0
    pages, resident = isolation.own_bytes(proc)
    output, their_output = os.pipe()
    control, their_control = os.pipe()
    start_s = time.monotonic()
    init = os.fork()
    if init:
        os.close(their_output)
        os.close(their_control)
        max_bytes = job["memory_bytes"] + 2 * resident
        outcome = watch(job, init, output=output, control=control, memory=(proc, max_bytes))
        reply({**outcome, "seconds": time.monotonic() - start_s})
        os._exit(0)
    os.close(proc)
    _attach(job["stdin"].encode(errors="surrogateescape"), their_output, their_control, is_call="call" in job)
    isolation.mount_tmp(job["file_bytes"], owner=user)
    isolation.limit(
        memory_bytes=pages + job["memory_bytes"],
        processes=job["processes"] + OVERHEAD_PROCESSES,
        file_bytes=job["file_bytes"],
        cpu_s=int(job["wall_s"]) + 1,
    )
    isolation.drop_privileges(user)
    isolation.die_with_parent()
    isolation.restrict_files(folders, "/tmp")
    isolation.restrict_calls()
    program = os.fork()
    if program:
        os._exit(_reap(program))
    os.close(CONTROL_FD)
    return job


def watch(
    job: dict[str, Any], init: int, *, output: int, control: int, memory: tuple[int, int]
) -> dict[str, Any]:
    """Read a program's output until init has ended; kill it at a limit of time, memory or output.

    `memory` is an open /proc, and the most bytes that the whole tree may have resident.
    """
    text, limit = bytearray(), None
    deadline, next_check = time.monotonic() + job["wall_s"], 0.0
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(control, select.POLLIN)
    poll.register(0, 0)  # reports only that it was closed: then nobody waits for the reply
    while limit is None:
        events = dict(poll.poll(CHECK_EVERY_S * 1000))
        if output in events:
            text += (chunk := os.read(output, 1 << 16))
            if not chunk:  # closed by the program, which may go on
                poll.unregister(output)
        now = time.monotonic()
        if len(text) > job["output_bytes"]:
            limit = "output"
        elif now > deadline or 0 in events:
            limit = "timeout"
        elif now > next_check:
            limit = "memory" if isolation.tree_bytes(memory[0], init) > memory[1] else None
            next_check = now + CHECK_EVERY_S
        if control in events:
            break
    if limit is not None:
        os.kill(init, signal.SIGKILL)
    os.waitpid(init, 0)  # returns when all its descendants are gone
    while len(text) <= job["output_bytes"] and (chunk := os.read(output, 1 << 16)):
        text += chunk
    return _outcome(limit, os.read(control, 100), bytes(text), job["output_bytes"])


def finish(run: Callable[[dict[str, Any]], None], job: dict[str, Any]) -> NoReturn:
    """Run the program and end as the interpreter does: threads, hooks, buffers, exit code; free no memory.

    Freeing it would copy every page that we share with the server: half of the time of a small program.
    """
    code: Any = 0
    try:
        run(job)
    except SystemExit as error:
        code = 0 if error.code is None else error.code if isinstance(error.code, int) else 1
    except BaseException:  # the program failed, whatever it raised
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as at any exit
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except Exception:  # the program may have replaced it; Python's own exit code for this is 120
        code = code or 120
    os._exit(code & 0xFF)


def run(job: dict[str, Any]) -> None:
    """Run the program as `__main__`, then call the function of it that the job names.

    It has `exit` and `quit`, which come with a module that we do not load, and may print long integers.
    """
    os.chdir("/tmp")
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "the end of input"))
    sys.set_int_max_str_digits(0)
    sys.argv = [PROGRAM]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(PROGRAM, "wb") as file:
        file.write(job["program"].encode(errors="surrogatepass"))
    module = types.ModuleType("__main__")
    loader = importlib.machinery.SourceFileLoader("__main__", PROGRAM)
    module.__loader__, module.__file__ = loader, PROGRAM
    sys.modules["__main__"] = module
    loader.exec_module(module)
    if "call" in job:
        value = getattr(module, job["call"])(*job["arguments"])
        with open(RESULT_FD, "w") as file:
            file.write(json.dumps(value, allow_nan=False))


def reply(message: dict[str, Any]) -> None:
    """Write one message to our parent, as `child.frame` does."""
    data = json.dumps(message).encode()
    data = len(data).to_bytes(4, "big") + data
    while data:
        data = data[os.write(1, data) :]


def _has_job() -> bool:
    poll = select.poll()
    poll.register(0, select.POLLIN)
    return any(event & select.POLLIN for _, event in poll.poll())


def _read_job() -> dict[str, Any]:
    size = int.from_bytes(_read_exactly(4), "big")
    if size > MAX_JOB_BYTES:
        raise ValueError(f"a job of {size} bytes")
    job: dict[str, Any] = json.loads(_read_exactly(size))
    return job


def _read_exactly(size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            raise EOFError("a job was cut off")
        data += chunk
    return bytes(data)


def _attach(stdin: bytes, output: int, control: int, *, is_call: bool) -> None:
    """Put the program's standard streams in place of ours, and close all else but `control`.

    A function's result leaves through RESULT_FD, and its printed output is dropped.
    """
    source = os.memfd_create("input", os.MFD_ALLOW_SEALING)
    rest = memoryview(stdin)
    while rest:
        rest = rest[os.write(source, rest) :]
    os.lseek(source, 0, os.SEEK_SET)
    fcntl.fcntl(source, fcntl.F_ADD_SEALS, 0b1111)  # never to grow, shrink or change
    nothing = os.open("/dev/null", os.O_WRONLY)
    stdout, result = (nothing, output) if is_call else (output, nothing)
    # First to high numbers, so that none overwrites another.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 40) for fd in (source, stdout, nothing, result, control)]
    for number, fd in enumerate(high):
        os.dup2(fd, number)
    os.closerange(CONTROL_FD + 1, 1 << 16)


def _reap(program: int) -> int:
    """Wait for the program, and for orphans meanwhile, and write its exit code to the guard."""
    while True:
        pid, status = os.wait()
        if pid == program:
            os.write(CONTROL_FD, str(os.waitstatus_to_exitcode(status)).encode())
            return 0


def _outcome(limit: str | None, report: bytes, text: bytes, max_bytes: int) -> dict[str, Any]:
    code = int(report) if report else 0
    status = "output" if limit is None and len(text) > max_bytes else limit
    if status is None:
        status = "fault" if not report else "ok" if code == 0 else "exit" if code > 0 else "signal"
    return {"status": status, "code": code, "stdout": text[:max_bytes].decode(errors="surrogateescape")}
