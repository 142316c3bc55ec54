"""Runs a program in a world where one system call does not exist, as on an older kernel or in a sandbox.

    without.py memfd_create COMMAND [ARGUMENT ...]

The filter is inherited by everything that the program starts."""
import ctypes
import os
import struct
import sys

NUMBERS = {"x86_64": {"memfd_create": 319}, "aarch64": {"memfd_create": 279}}
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD_NUMBER = (0x20, 0, 0, 0)
ENOSYS = 38
RETURN, ALLOW, ERROR, EQUAL = 0x06, 0x7fff0000, 0x00050000, 0x15


def forbid(name):
    number = NUMBERS[os.uname().machine][name]
    steps = [LOAD_NUMBER, (EQUAL, 0, 1, number), (RETURN, 0, 0, ERROR | ENOSYS), (RETURN, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("<H6xQ", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_void_p(ctypes.addressof(program)), 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    forbid(sys.argv[1])
    os.execvp(sys.argv[2], sys.argv[2:])
