"""The system calls that a program may make, as a seccomp filter; every other call is refused.

Numbers are Linux's own (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h); the
filter's form is that of Documentation/userspace-api/seccomp_filter.rst. Allowed is what a Python program
needs to compute, to read its input and to write its output and its own files. Starting other programs,
sockets, shared memory, tracing, mounting, new namespaces, keys, io_uring, bpf and modules are not allowed.
"""

import struct

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_* of the machines in TABLE."""
ALLOW, REFUSE, NOT_THERE, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000  # EPERM is 1, ENOSYS 38
LOAD, EQUALS, HAS_BITS, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER_AT, ARCHITECTURE_AT, FIRST_AT, SECOND_AT = 0, 4, 16, 24  # in struct seccomp_data; low halves
NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
ALLOWED_IOCTLS = (0x5401, 0x5421, 0x5450, 0x5451, 0x541B)  # TCGETS, FIONBIO, FIONCLEX, FIOCLEX, FIONREAD
CLONE = {"x86_64": 56, "aarch64": 220}
IOCTL = {"x86_64": 16, "aarch64": 29}
PRLIMIT = {"x86_64": 302, "aarch64": 261}
CLONE3 = 435  # its flags lie in memory, where a filter cannot look; the C library then uses clone

# name x86_64 aarch64; "-": this machine has no such call
TABLE = """
read 0 63 write 1 64 open 2 - close 3 57 stat 4 - fstat 5 80 lstat 6 - poll 7 - lseek 8 62 mmap 9 222
mprotect 10 226 munmap 11 215 brk 12 214 rt_sigaction 13 134 rt_sigprocmask 14 135 rt_sigreturn 15 139
pread64 17 67 pwrite64 18 68 readv 19 65 writev 20 66 access 21 - pipe 22 - select 23 - sched_yield 24 124
mremap 25 216 madvise 28 233 dup 32 23 dup2 33 - pause 34 - nanosleep 35 101 getitimer 36 102 alarm 37 -
setitimer 38 103 getpid 39 172 sendfile 40 71 fork 57 - vfork 58 - exit 60 93 wait4 61 260 kill 62 129
uname 63 160 fcntl 72 25 flock 73 32 fsync 74 82 fdatasync 75 83 truncate 76 45 ftruncate 77 46 getdents 78 -
getcwd 79 17 chdir 80 49 fchdir 81 50 rename 82 - mkdir 83 - rmdir 84 - creat 85 - link 86 - unlink 87 -
symlink 88 - readlink 89 - chmod 90 - fchmod 91 52 umask 95 166 gettimeofday 96 169 getrlimit 97 163
getrusage 98 165 sysinfo 99 179 times 100 153 getuid 102 174 getgid 104 176 geteuid 107 175 getegid 108 177
setpgid 109 154 getppid 110 173 getpgrp 111 - setsid 112 157 getgroups 115 158 getresuid 118 148
getresgid 120 150 getpgid 121 155 getsid 124 156 rt_sigpending 127 136 rt_sigtimedwait 128 137
rt_sigsuspend 130 133 sigaltstack 131 132 statfs 137 43 fstatfs 138 44 arch_prctl 158 - gettid 186 178
tkill 200 130 time 201 - futex 202 98 sched_getaffinity 204 123 getdents64 217 61 set_tid_address 218 96
restart_syscall 219 128 clock_gettime 228 113 clock_getres 229 114 clock_nanosleep 230 115 exit_group 231 94
tgkill 234 131 waitid 247 95 openat 257 56 mkdirat 258 34 newfstatat 262 79 unlinkat 263 35 renameat 264 38
linkat 265 37 symlinkat 266 36 readlinkat 267 78 fchmodat 268 53 faccessat 269 48 pselect6 270 72 ppoll 271 73
set_robust_list 273 99 utimensat 280 88 dup3 292 24 pipe2 293 59 getcpu 309 168
renameat2 316 276 getrandom 318 278 copy_file_range 326 285 statx 332 291 rseq 334 293 close_range 436 436
"""


def allowed(machine: str) -> list[int]:
    """Numbers of the calls that are allowed whatever their arguments."""
    words = TABLE.split()
    column = 1 if machine == "x86_64" else 2
    return [int(words[at + column]) for at in range(0, len(words), 3) if words[at + column] != "-"]


def filter_program(machine: str) -> bytes:
    """The filter as an array of struct sock_filter; KeyError for a machine that is not in TABLE."""
    rules = [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (EQUALS, 1, 0, ARCHITECTURES[machine]),
        (RETURN, 0, 0, KILL),  # 32-bit calls have other numbers
        (LOAD, 0, 0, NUMBER_AT),
        (EQUALS, 0, 1, CLONE3),
        (RETURN, 0, 0, NOT_THERE),
        (EQUALS, 0, 4, CLONE[machine]),
        (LOAD, 0, 0, FIRST_AT),
        (HAS_BITS, 0, 1, NEW_NAMESPACES),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
        (EQUALS, 0, 4, PRLIMIT[machine]),
        (LOAD, 0, 0, FIRST_AT),
        (EQUALS, 0, 1, 0),  # the limits of this process only
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
        (EQUALS, 0, len(ALLOWED_IOCTLS) + 3, IOCTL[machine]),
        (LOAD, 0, 0, SECOND_AT),
    ]
    for distance, request in zip(range(len(ALLOWED_IOCTLS), 0, -1), ALLOWED_IOCTLS, strict=True):
        rules.append((EQUALS, distance, 0, request))
    rules += [(RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    for number in allowed(machine):
        rules += [(EQUALS, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    rules.append((RETURN, 0, 0, REFUSE))
    return b"".join(struct.pack("<HBBI", *rule) for rule in rules)
