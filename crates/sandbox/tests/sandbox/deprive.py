"""Takes something away from itself and then executes what follows `--`.

deprive.py user-namespaces -- PROGRAM…          no further user namespace may be made
deprive.py NUMBER:ERRNO[:ARGUMENT] -- PROGRAM…  a system call, or the one with this first argument, is answered with an error
"""

import ctypes
import os
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_USER, NEW_MOUNTS = 0x10000000, 0x20000
NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 22, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERROR = 0x7FFF0000, 0x00050000


def check(result):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def no_user_namespaces():
    uid, gid, pid = os.getuid(), os.getgid(), os.getpid()
    made, told = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(told)
        os.read(made, 1)
        # Root maps all that a sandbox's user could be, which takes somebody outside; anybody else has only oneself.
        many = 0x10000000 if uid == 0 else 1
        if uid != 0:
            write(f"/proc/{pid}/setgroups", "deny")
        write(f"/proc/{pid}/uid_map", f"{uid} {uid} {many}")
        write(f"/proc/{pid}/gid_map", f"{gid} {gid} {many}")
        os._exit(0)
    # With mounts of its own, as root of a container has them.
    check(LIBC.unshare(NEW_USER | NEW_MOUNTS))
    os.close(told)
    assert os.waitpid(helper, 0)[1] == 0
    os.close(made)
    write("/proc/sys/user/max_user_namespaces", "0")


def write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def refuse(number, code, argument):
    one = lambda operation, yes, no, value: struct.pack("HBBI", operation, yes, no, value)
    program = [one(LOAD, 0, 0, 0)]
    if argument is None:
        program.append(one(EQUAL, 0, 1, number))
    else:
        program += [one(EQUAL, 0, 3, number), one(LOAD, 0, 0, 16), one(EQUAL, 0, 1, argument)]
    program += [one(RETURN, 0, 0, ERROR | code), one(RETURN, 0, 0, ALLOW)]
    instructions = ctypes.create_string_buffer(b"".join(program))
    head = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(instructions))
    check(LIBC.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    check(LIBC.prctl(SECCOMP, FILTER, ctypes.create_string_buffer(head), 0, 0))


def main():
    what, separator, *program = sys.argv[1:]
    assert separator == "--"
    if what == "user-namespaces":
        no_user_namespaces()
    else:
        number, code, *argument = (int(part) for part in what.split(":"))
        refuse(number, code, argument[0] if argument else None)
    os.execv(program[0], program)


main()
