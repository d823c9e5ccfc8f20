"""The filter of system calls, read by an interpreter of our own of its four instructions."""

import struct

import pytest

from shoestring.sandbox import seccomp as seccomp


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the filter returns for a call."""
    data = struct.pack("=iIQ", number, architecture or seccomp.ARCHITECTURES[machine], 0)
    data += struct.pack("=6Q", *arguments, *[0] * (6 - len(arguments)))
    program = list(struct.iter_unpack("<HBBI", seccomp.filter_program(machine)))
    at, value = 0, 0
    while True:
        code, yes, no, operand = program[at]
        at += 1
        if code == seccomp.RETURN:
            return operand
        if code == seccomp.LOAD:
            (value,) = struct.unpack_from("=I", data, operand)
        else:
            holds = value == operand if code == seccomp.EQUALS else bool(value & operand)
            at += yes if holds else no


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_only_what_is_listed_passes(machine):
    special = {getattr(seccomp, name)[machine] for name in ("CLONE", "IOCTL", "PRLIMIT")} | {seccomp.CLONE3}
    listed = set(seccomp.allowed(machine))
    assert not listed & special
    for number in set(range(600)) - special:
        assert verdict(machine, number) == (seccomp.ALLOW if number in listed else seccomp.REFUSE), number
    assert verdict(machine, seccomp.CLONE3) == seccomp.NOT_THERE
    assert verdict(machine, 0x40000000) == seccomp.REFUSE  # x32
    assert verdict(machine, 0, architecture=0x40000003) == seccomp.KILL  # i386


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_arguments_are_looked_at(machine):
    clone, ioctl = seccomp.CLONE[machine], seccomp.IOCTL[machine]
    assert verdict(machine, clone, 17) == seccomp.ALLOW
    assert verdict(machine, clone, 0x3D0F00) == seccomp.ALLOW  # a thread
    for bit in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(machine, clone, bit | 17) == seccomp.REFUSE
    assert verdict(machine, seccomp.PRLIMIT[machine], 0, 7) == seccomp.ALLOW
    assert verdict(machine, seccomp.PRLIMIT[machine], 1, 7) == seccomp.REFUSE
    for request in seccomp.ALLOWED_IOCTLS:
        assert verdict(machine, ioctl, 0, request) == seccomp.ALLOW
    assert verdict(machine, ioctl, 0, 0x5412) == seccomp.REFUSE  # TIOCSTI


@pytest.mark.parametrize(
    "name", ["execve", "ptrace", "socket", "mount", "unshare", "bpf", "io_uring_setup", "memfd_create"]
)
def test_the_dangerous_are_not_listed(name):
    assert name not in seccomp.TABLE.split()


def test_an_unknown_machine_has_no_filter():
    with pytest.raises(KeyError):
        seccomp.filter_program("riscv64")
