"""Programs that try to break out of the sandbox, to exhaust its resources, or to get a false reward.

An attack that succeeds prints ESCAPED; its targets are decoys that bench/sandbox.py makes outside and names
in a JSON object on standard input. Attacks on the reward (sandbox_cheats.py) succeed when their reward is
not 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sandbox_cheats import RESULTS, REWARDS

Kind = Literal["escape", "resource", "reward"]

HEAD = """
import ctypes, json, os, socket, sys, time
outside = json.load(sys.stdin)
libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == "x86_64"

def reaches_kernel(x86_64, aarch64, *arguments):
    # Refused by our filter: EPERM or ENOSYS. Anything else came from the kernel itself.
    result = libc.syscall(x86_64 if x86 else aarch64, *(arguments or (-1, 0, 0, 0, 0, 0)))
    return result >= 0 or ctypes.get_errno() not in (1, 38)

def won(result=True):
    if result:
        print("ESCAPED", flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Program of an attack; a `harmless` one may run without the sandbox, to show that it works there."""

    name: str
    kind: Kind
    program: str
    harmless: bool = False
    function: str | None = None


ESCAPES = r"""
# read a file
won(open(outside['secret']).read())
# read a file by an absolute path with ..
won(open('/tmp/../..' + outside['secret']).read())
# read a file through a symbolic link
os.symlink(outside['secret'], '/tmp/l')
won(open('/tmp/l').read())
# hard link to a file
os.link(outside['secret'], '/tmp/h')
won(open('/tmp/h').read())
# see a file's metadata
won(os.stat(outside['secret']))
# see that a file exists
won(os.access(outside['secret'], os.F_OK))
# list a folder
won(os.listdir(outside['folder']))
# list the root
won('home' in os.listdir('/') or 'etc' in os.listdir('/'))
# read the user table
won(open('/etc/passwd').read())
# see the home folder
won(os.listdir(outside['home']))
# write a file
open(outside['folder'] + '/written', 'w').write('x')
won()
# write beside the standard library
won(os.access(os.__file__, os.W_OK))
won(os.access(os.path.dirname(os.__file__), os.W_OK))
# write sitecustomize
import sysconfig
won(os.access(sysconfig.get_path('purelib'), os.W_OK))
# remount the root
won(libc.mount(None, b'/', None, 32 | 4096, None) == 0)
# unmount own files
won(libc.umount2(b'/tmp', 2) == 0)
# change the root
os.chroot('/tmp')
won()
# pivot the root
won(reaches_kernel(155, 41))
# read the environment
won('SECRET' in str(os.environ))
# read /proc/1/environ
won(open('/proc/1/environ', 'rb').read())
# read own /proc
won(open('/proc/self/maps').read())
# read /proc/sys
won(open('/proc/sys/kernel/core_pattern').read())
# mount /proc
os.mkdir('/tmp/p')
won(libc.mount(b'proc', b'/tmp/p', b'proc', 0, None) == 0)
# inherited descriptors
for fd in range(4, 256):
    try:
        won(os.fstat(fd))
    except OSError:
        continue
# raise the descriptor limit
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (9999, 9999))
won()
# raise the memory limit
import resource
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
won()
# run from a memory file
fd = os.memfd_create('x')
won(fd >= 0)
# start a program
os.execv(sys.executable, [sys.executable, '-c', 'print("ESCAPED")'])
# start a shell
won(os.system('true') == 0)
# spawn
won(os.posix_spawn('/bin/true', ['true'], {}))
# set-user-id program
os.execv('/bin/su', ['su', '-c', 'echo ESCAPED'])
# trace init
won(libc.ptrace(16, 1, 0, 0) == 0 or reaches_kernel(101, 117))
# read init's memory
won(open('/proc/1/mem', 'rb') or reaches_kernel(310, 270))
# read another process's memory
won(reaches_kernel(310, 270))
# write another process's memory
won(reaches_kernel(311, 271))
# take another process's descriptor
won(reaches_kernel(438, 438))
# io_uring
won(reaches_kernel(425, 425))
# bpf
won(reaches_kernel(321, 280))
# new user namespace
won(libc.unshare(0x10000000) == 0 or reaches_kernel(272, 97))
# clone with a user namespace
won(reaches_kernel(56, 220, 0x10000000 | 17, 0, 0, 0, 0))
# clone3
won(reaches_kernel(435, 435))
# enter a namespace
won(reaches_kernel(308, 268))
# load a kernel
won(reaches_kernel(246, 104) or reaches_kernel(320, 294))
# load a module
won(reaches_kernel(175, 105) or reaches_kernel(313, 273))
# reboot
won(reaches_kernel(169, 142, 0, 0, 0, 0))
# kernel keys
won(reaches_kernel(250, 219) or reaches_kernel(248, 217))
# userfaultfd
won(reaches_kernel(323, 282))
# performance events
won(reaches_kernel(298, 241))
# open by handle
won(reaches_kernel(304, 265))
# make a device
won(reaches_kernel(133, 33)) if x86 else os.mknod('/tmp/d', 0o020666, os.makedev(1, 1))
# become root
os.setuid(0)
won(os.getuid() == 0 and reaches_kernel(105, 146))
# change the personality
won(reaches_kernel(135, 92))
# connect by TCP
won(not socket.create_connection(('127.0.0.1', outside['port']), 1).close())
# listen by TCP
won(socket.create_server(('127.0.0.1', 0)))
# reach a metadata address
s = socket.socket(type=socket.SOCK_DGRAM)
s.connect(('169.254.169.254', 9))
won()
# resolve a name
won(socket.getaddrinfo('localhost', 80) and socket.socket())
# connect to a local socket
s = socket.socket(socket.AF_UNIX)
s.connect(outside['service'])
won()
# netlink
won(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
# vsock
won(socket.socket(40))
# socket pair
won(socket.socketpair())
# kernel log
won(open('/dev/kmsg', 'rb') or reaches_kernel(103, 116))
# shared memory folder
open('/dev/shm/x', 'w')
won()
# System V shared memory
won(libc.shmget(0x5A5A, 4096, 0o1600) >= 0)
# message queue
won(reaches_kernel(240, 180))
# signal the parent
os.kill(outside['pid'], 0)
won(os.getpid() != 2)
# signal init
os.kill(1, 9)
os.kill(1, 15)
time.sleep(0.1)
os.kill(1, 2)
won(os.getppid() != 1)
# limit init
import resource
won(resource.prlimit(1, resource.RLIMIT_CPU, (0, 0)) is not None)
# signal everybody
os.kill(-1, 9)
won(False)
# see many processes
won(os.getpid() > 2)
# 32-bit calls
won(x86 and reaches_kernel(0x40000000 + 101, 117))
# terminal injection
import fcntl
fcntl.ioctl(0, 0x5412, b'x')
won()
# leave a file for the next program
open('/tmp/left', 'w').write('x')
for n in os.listdir('/tmp'): won(n == 'before')
"""
HARMLESS = """read a file; read a file by an absolute path with ..; see a file's metadata; see that a file
exists; list a folder; write a file; read the environment; read own /proc; connect by TCP;
socket pair; connect to a local socket; run from a memory file; start a shell; signal the
parent; see many processes""".replace("\n", " ").split("; ")
RESOURCES = r"""
# fork bomb
while True: os.fork()
# quiet fork bomb
n = 0
try:
    while os.fork():
        n += 1
        won(n == 40)
except OSError:
    sys.exit()
time.sleep(9)
# thread bomb
import threading
for n in range(100):
    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
won()
# memory in one process
x = bytearray(1 << 30)
won()
# memory in twelve processes
ends = os.pipe()
is_first = True
for _ in range(11):
    is_first = is_first and os.fork() != 0
x = b'x' * (60 << 20)
os.write(ends[1], b'x')
count = 0
while is_first and count < 12:
    count += len(os.read(ends[0], 1))
won(is_first)
time.sleep(9)
# memory by mapping
import mmap
m = mmap.mmap(-1, 64 << 30)
won()
# memory by a string
x = 'a'
while True: x += x
# disk in one file
f = open('/tmp/f', 'wb')
for _ in range(64): f.write(bytes(1 << 20)); f.flush()
won()
# disk in many files
for n in range(64): open(f'/tmp/{n}', 'wb').write(bytes(1 << 20))
won()
# sparse file
os.truncate(os.open('/tmp/f', os.O_CREAT | os.O_RDWR), 1 << 40)
won()
# inodes
for n in range(5000): open(f'/tmp/{n}', 'w').close()
won()
# deep folders
for n in range(5000): os.mkdir('d'); os.chdir('d')
won()
# descriptors
k = [os.dup(0) for _ in range(500)]
won()
# pipes
import fcntl
for _ in range(200): fcntl.fcntl(os.pipe()[1], 1031, 1 << 20)
won()
# flood of output
while True: print('x' * 65536)
# flood of errors
end = time.time() + 0.2
while time.time() < end: sys.stderr.write('x' * 65536)
# flood from many
os.fork()
os.fork()
while True: os.write(1, b'x' * 65536)
# endless loop
while True: pass
# endless loop in threads
import threading
def f():
    while True: pass
for _ in range(8): threading.Thread(target=f).start()
# sleep
time.sleep(99)
won()
# ignores signals
import signal
for n in range(1, 65):
    if n not in (9, 19, 32, 33): signal.signal(n, signal.SIG_IGN)
time.sleep(99)
# stops itself
import signal
os.kill(os.getpid(), signal.SIGSTOP)
won()
# daemon
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for n in (0, 1, 2): os.close(n)
        time.sleep(99)
    os._exit(0)
# daemon that holds the output
if os.fork() == 0: time.sleep(99)
# exit hook that never ends
import atexit
atexit.register(time.sleep, 99)
# regular expression
import re
re.match('(a+)+$', 'a' * 40 + 'b')
# huge power
x = 9 ** 9 ** 9
# huge number printed
sys.set_int_max_str_digits(0)
print(len(str(1 << (1 << 25))))
# pickle bomb
import pickle
x = []
for _ in range(40): x = [x, x]
print(len(repr(x)))
# crash by recursion
sys.setrecursionlimit(1 << 30)
f = lambda: f()
f()
# crash in C
ctypes.string_at(0)
# zombies
for _ in range(300):
    try: os.fork() or os._exit(0)
    except OSError: pass
# decompression bomb
import zlib
c = zlib.compressobj()
d = b''.join(c.compress(bytes(1 << 20)) for _ in range(400)) + c.flush()
won(zlib.decompress(d))
"""


def attacks() -> list[Attack]:
    """All attacks by kind, in a fixed order."""
    result = [
        Attack(name=n, kind="escape", program=HEAD + p, harmless=n in HARMLESS) for n, p in parts(ESCAPES)
    ]
    result += [Attack(name=name, kind="resource", program=HEAD + code) for name, code in parts(RESOURCES)]
    result += [Attack(name=name, kind="reward", program=code) for name, code in parts(REWARDS)]
    return result + [Attack(name=n, kind="reward", program=p, function="add") for n, p in parts(RESULTS)]


def parts(text: str) -> Iterator[tuple[str, str]]:
    """Names and programs in a text; every line that begins with # starts a program."""
    for part in text.split("\n# ")[1:]:
        name, _, code = part.partition("\n")
        yield name, code.rstrip("\n") + "\n"
