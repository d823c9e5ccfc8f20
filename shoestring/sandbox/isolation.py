"""Linux calls that isolate a process: namespaces, a file tree of its own, Landlock, limits, no privileges.

Only the standard library: this runs in the sandbox's process. Calls raise OSError with the call's name.
Sources: namespaces(7), user_namespaces(7), pivot_root(2), Documentation/userspace-api/landlock.rst.
"""

import ctypes
import os
import resource
import struct

from shoestring.sandbox.seccomp import filter_program

NOBODY = 65534
NEW_MOUNTS, NEW_HOST, NEW_IPC = 0x00020000, 0x04000000, 0x08000000  # CLONE_NEWNS, -UTS, -IPC
NEW_USER, NEW_PIDS, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC = 1, 2, 4, 8  # MS_*
REMOUNT, BIND, RECURSIVE, PRIVATE, DETACH = 32, 4096, 16384, 1 << 18, 2
SET_DEATH_SIGNAL, SET_DUMPABLE, SET_SECCOMP, SET_NO_NEW_PRIVILEGES = 1, 4, 22, 38  # PR_*
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
FILE_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 5: 16}  # Landlock version -> how many rights on files it knows
READ_FILES = 0b1100  # READ_FILE, READ_DIR
USE_DEVICE = 0b0110  # WRITE_FILE, READ_FILE
OWN_FILES = 0b111_0001_1011_1110  # not EXECUTE, IOCTL_DEV, nor making devices, sockets and named pipes
TREE = "/proc"
"""The mount point of the new root while it is built: it always exists, and no file of Python is in it."""

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> int:
    """Call a function of the C library by name; OSError when it returns a negative number."""
    plain = [
        a.encode() if isinstance(a, str) else ctypes.c_long(a) if isinstance(a, int) else a for a in arguments
    ]
    result = int(getattr(libc, name)(*plain))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def enter_namespaces() -> None:
    """Enter a user namespace (with "nobody" in it, where we are root) with its own mounts, network and IPC.

    From here on every capability is one over these namespaces only.
    """
    user, group = os.getuid(), os.getgid()
    release, hold = os.pipe()
    helper = os.fork() if user == 0 else 0
    if user == 0 and helper == 0:  # only a process outside may map a second user
        os.read(release, 1)
        os._exit(_map_root(os.getppid()))
    call("unshare", NEW_USER | NEW_MOUNTS | NEW_NETWORK | NEW_IPC | NEW_HOST)
    if user == 0:
        os.write(hold, b"x")
        os.waitpid(helper, 0)
    else:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {user} 1")
        _write("/proc/self/gid_map", f"0 {group} 1")
    os.close(release)
    os.close(hold)
    if os.getuid() != 0:
        raise OSError(f"uid_map: the user is {os.getuid()} in its own namespace")
    call("sethostname", "sandbox", 7)


def _map_root(pid: int) -> int:
    for lines in (f"0 0 1\n{NOBODY} {NOBODY} 1\n", "0 0 1\n"):
        try:
            for name in ("uid_map", "gid_map"):
                _write(f"/proc/{pid}/{name}", lines)
            return 0
        except OSError:  # in some containers root may map only itself
            continue
    return 1


def enter_tree(folders: list[str], hidden: list[str]) -> None:
    """Leave the file system for a tree of these folders, read-only, at their old paths, /tmp and /dev/null.

    Folders in `hidden` become empty.
    """
    call("mount", None, "/", None, RECURSIVE | PRIVATE, None)
    call("mount", "tmpfs", TREE, "tmpfs", NO_SUID | NO_DEVICES, "size=1m,nr_inodes=256,mode=755")
    for folder in folders:
        os.makedirs(TREE + folder, exist_ok=True)
        _bind(folder, TREE + folder)
    for folder in hidden:
        call("mount", "tmpfs", TREE + folder, "tmpfs", READ_ONLY | NO_SUID | NO_DEVICES, "size=4k,mode=755")
    os.makedirs(TREE + "/tmp", exist_ok=True)
    os.mkdir(TREE + "/dev")
    os.close(os.open(TREE + "/dev/null", os.O_CREAT | os.O_WRONLY, 0o666))
    call("mount", "/dev/null", TREE + "/dev/null", None, BIND, None)
    os.chdir(TREE)
    call("syscall", PIVOT_ROOT[os.uname().machine], b".", b".")  # the old root lies on top of the new one
    call("umount2", ".", DETACH)
    os.chdir("/")
    call("mount", None, "/", None, REMOUNT | BIND | READ_ONLY | NO_SUID | NO_DEVICES, None)


def _bind(source: str, target: str) -> None:
    call("mount", source, target, None, BIND | RECURSIVE, None)
    no_exec = os.statvfs(target).f_flag & NO_EXEC  # an inherited restriction may not be dropped
    call("mount", None, target, None, REMOUNT | BIND | READ_ONLY | NO_SUID | NO_DEVICES | no_exec, None)


def mount_tmp(max_bytes: int, *, owner: int) -> None:
    """Mount a new /tmp of this size for this process; it is gone with the last process that sees it."""
    options = f"size={max_bytes},nr_inodes=1024,mode=700,uid={owner},gid={owner}"
    call("mount", "tmpfs", "/tmp", "tmpfs", NO_SUID | NO_DEVICES | NO_EXEC, options)


def die_with_parent() -> None:
    """Ask for SIGKILL when the process that forked this one ends. A change of user cancels it."""
    call("prctl", SET_DEATH_SIGNAL, 9, 0, 0, 0)


def is_nobody_mapped(proc: int) -> bool:
    """Return whether this user namespace has a user beside root; `proc` is an open /proc."""
    lines = _read("self/uid_map", proc).decode().splitlines()
    return any(line.split()[0] == str(NOBODY) for line in lines)


def own_bytes(proc: int) -> tuple[int, int]:
    """Bytes of this process's address space, and those of it that are resident."""
    size, resident = _read("self/statm", proc).split()[:2]
    return int(size) * resource.getpagesize(), int(resident) * resource.getpagesize()


def drop_privileges(user: int) -> None:
    """Become `user` without any capability, closed to tracing, for good."""
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    call("capset", struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", *[0] * 6))
    call("prctl", SET_DUMPABLE, 0, 0, 0, 0)  # no core dumps, no reading of its memory
    call("prctl", SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def limit(*, memory_bytes: int, processes: int, file_bytes: int, cpu_s: int) -> None:
    """Bound what one process may use; `processes` counts all of this user in this user namespace."""
    limits = {"AS": memory_bytes, "NPROC": processes, "FSIZE": file_bytes, "CPU": cpu_s, "NOFILE": 64}
    for name, value in {**limits, "CORE": 0, "MEMLOCK": 0, "MSGQUEUE": 0, "SIGPENDING": 64}.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is None:  # Python names not all of them
            kind = {"SIGPENDING": 11, "MSGQUEUE": 12}[name]
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def landlock_version() -> int:
    """The kernel's Landlock version; 0 where it has none, or has it switched off."""
    try:
        return call("syscall", LANDLOCK_CREATE, None, 0, 1)
    except OSError:
        return 0


def restrict_files(readable: list[str], own: str) -> None:
    """Restrict file access again where the kernel has Landlock: read these folders, write only in `own`."""
    version = landlock_version()
    if version == 0:
        return
    known_rights = (1 << FILE_RIGHTS_BY_ABI[max(v for v in FILE_RIGHTS_BY_ABI if v <= version)]) - 1
    # Files; TCP bind and connect (version 4); abstract sockets and signals (version 6).
    ruleset = struct.pack("=QQQ", known_rights, 3, 3)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = call("syscall", LANDLOCK_CREATE, ruleset, size, 0)
    rights = {**dict.fromkeys(readable, READ_FILES), own: OWN_FILES, "/dev/null": USE_DEVICE}
    for path, right in rights.items():
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        call("syscall", LANDLOCK_ADD, rules, 1, struct.pack("=Qi", right & known_rights, folder), 0)
        os.close(folder)
    call("syscall", LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)


def restrict_calls() -> None:
    """Allow only the system calls of `seccomp.py` from now on, in this process and its children."""
    program = ctypes.create_string_buffer(filter_program(os.uname().machine))
    length = (len(program) - 1) // 8
    header = ctypes.create_string_buffer(struct.pack("@HP", length, ctypes.addressof(program)))
    call("prctl", SET_SECCOMP, 2, header, 0, 0)


def tree_bytes(proc: int, pid: int) -> int:
    """Resident bytes of a process and its descendants; a page that they share counts once in each.

    `proc` is an open folder: the /proc in which `pid` is a number.
    """
    pages, waiting = 0, [pid]
    while waiting:
        pid = waiting.pop()
        try:
            pages += int(_read(f"{pid}/statm", proc).split()[1])
            task = os.open(f"{pid}/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=proc)
            try:
                for thread in os.listdir(task):
                    waiting += [int(child) for child in _read(f"{thread}/children", task).split()]
            finally:
                os.close(task)
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
    return pages * resource.getpagesize()


def _read(path: str, folder: int) -> bytes:
    file = os.open(path, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(file, 1 << 16)
    finally:
        os.close(file)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
