"""Tries to get out of a sandbox, one way per name, and says what came of it: an error's name, or what was found.

Run inside: escape.py NAME [ARGUMENT]. Nothing here decides what is right; the tests do.
"""

import ctypes
import errno
import fcntl
import glob
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
MACHINE = 0 if platform.machine() == "x86_64" else 1

# Numbers of system calls, on x86-64 and on AArch64.
NUMBERS = {
    "acct": (163, 89), "add_key": (248, 217), "bpf": (321, 280), "chroot": (161, 51), "clone": (56, 220),
    "clone3": (435, 435), "delete_module": (176, 106), "finit_module": (313, 273), "fsopen": (430, 430),
    "getpid": (39, 172), "init_module": (175, 105), "io_uring_setup": (425, 425), "ioctl": (16, 29),
    "kcmp": (312, 272), "kexec_load": (246, 104), "keyctl": (250, 219), "mount": (165, 40),
    "mount_setattr": (442, 442), "move_mount": (429, 429), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "open_tree": (428, 428), "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438), "pidfd_open": (434, 434), "pivot_root": (155, 41), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "ptrace": (101, 117), "reboot": (169, 142), "request_key": (249, 218),
    "sethostname": (170, 161), "setgroups": (116, 159), "setns": (308, 268), "settimeofday": (164, 170),
    "swapon": (167, 224), "syslog": (103, 116), "umount2": (166, 39), "unshare": (272, 97),
    "userfaultfd": (323, 282),
}

# Arguments with which each would do harm, or at least answer something else than a refusal.
CALLS = {
    "acct": (b"/tmp/acct",),
    "add_key": (b"user", b"name", b"secret", 6, -3),
    "bpf": (0, bytes(128), 128),
    "chroot": (b"/tmp",),
    "clone3": (struct.pack("8Q", 0, 0, 0, 0, 17, 0, 0, 0), 64),
    "delete_module": (b"loop", 0),
    "finit_module": (0, b"", 0),
    "fsopen": (b"tmpfs", 0),
    "init_module": (b"", 0, b""),
    "io_uring_setup": (8, bytes(120)),
    "kcmp": (os.getpid(), os.getpid(), 0, 0, 0),
    "kexec_load": (0, 0, 0, 0),
    "keyctl": (0, -3, 0),
    "mount": (b"none", b"/tmp", b"tmpfs", 0, None),
    "mount_setattr": (-100, b"/", 0, bytes(32), 32),
    "move_mount": (-100, b"/tmp", -100, b"/home", 0),
    "name_to_handle_at": (-100, b"/tmp", struct.pack("Ii", 128, 0) + bytes(128), bytes(4), 0),
    "open_by_handle_at": (-100, struct.pack("Ii", 8, 1) + bytes(8), 0),
    "open_tree": (-100, b"/", 1),
    "perf_event_open": (bytes(128), 0, -1, -1, 0),
    "pivot_root": (b"/tmp", b"/tmp"),
    "process_vm_readv": (os.getppid(), None, 0, None, 0, 0),
    "process_vm_writev": (os.getppid(), None, 0, None, 0, 0),
    "ptrace": (16, os.getppid(), 0, 0),
    "reboot": (0xFEE1DEAD, 672274793, 0, None),
    "request_key": (b"user", b"name", None, 0),
    "sethostname": (b"other", 5),
    "setgroups": (0, None),
    "settimeofday": (struct.pack("2Q", 0, 0), None),
    "swapon": (b"/tmp/swap", 0),
    "syslog": (3, bytes(64), 64),
    "umount2": (b"/proc", 2),
    "userfaultfd": (1,),
}


def number(name):
    return NUMBERS[name][MACHINE]


def name_of(code):
    return errno.errorcode.get(code, str(code))


def raw(number, *arguments):
    ctypes.set_errno(0)
    arguments = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *arguments)
    return name_of(ctypes.get_errno()) if result == -1 else "done"


def attempt(action):
    try:
        return f"done: {action()}"
    except OSError as error:
        return name_of(error.errno)


def call(name):
    return raw(number(name), *CALLS[name])


def unshare(flag):
    return raw(number("unshare"), int(flag, 0))


def clone(flag):
    # Without a stack this is a fork: the copy must not come back here.
    result = LIBC.syscall(ctypes.c_long(number("clone")), ctypes.c_long(int(flag, 0) | 17), *[ctypes.c_long(0)] * 4)
    if result == 0:
        os._exit(0)
    return name_of(ctypes.get_errno()) if result == -1 else "done"


def setns(kind):
    try:
        namespace = os.open(f"/proc/self/ns/{kind}", os.O_RDONLY)
    except OSError as error:
        return name_of(error.errno)
    return raw(number("setns"), namespace, 0)


def pidfd_getfd(_):
    pidfd = LIBC.syscall(ctypes.c_long(number("pidfd_open")), ctypes.c_long(os.getppid() or os.getpid()), ctypes.c_long(0))
    return raw(number("pidfd_getfd"), pidfd, 0, 0)


def open_read(path):
    return attempt(lambda: open(path, "rb").read(64))


def open_write(path):
    return attempt(lambda: os.close(os.open(path, os.O_WRONLY)))


def create(path):
    return attempt(lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)))


def contents(path):
    try:
        with open(path, "rb") as file:
            return repr(file.read(64))
    except OSError as error:
        return name_of(error.errno)


def hidden(path):
    """A kernel need not have it; one that does must show nothing of it."""
    if os.path.isdir(path):
        return "hidden" if not os.listdir(path) else listing(path)
    found = contents(path)
    return "hidden" if found in ("b''", "ENOENT") else found


def listing(path):
    try:
        return " ".join(sorted(os.listdir(path))) or "nothing"
    except OSError as error:
        return name_of(error.errno)


def make_socket(kinds):
    family, kind, protocol = (int(one) for one in kinds.split(","))
    return attempt(lambda: socket.socket(family, kind, protocol).close())


def add_route(_):
    # RTM_NEWROUTE for 10.0.0.0/8, as the kernel's own user.
    route = struct.pack("8BI", 2, 8, 0, 0, 254, 4, 0, 1, 0) + struct.pack("HH4s", 8, 1, bytes([10, 0, 0, 0]))
    route += struct.pack("HHI", 8, 4, 1)
    message = struct.pack("IHHII", 16 + len(route), 24, 0x605, 1, 0) + route
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
        kernel.send(message)
        answer = kernel.recv(4096)
    return name_of(-struct.unpack_from("i", answer, 16)[0])


def connect(address):
    host, port = address.rsplit(" ", 1)
    def action():
        with socket.create_connection((host, int(port)), 5) as connection:
            return connection.recv(64)
    return attempt(action)


def datagram(address):
    host, port = address.rsplit(" ", 1)
    def action():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.settimeout(2)
            sender.connect((host, int(port)))
            sender.send(b"out")
            return sender.recv(64)
    return attempt(action)


def abstract(name):
    def action():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(b"\0" + name.encode())
    return attempt(action)


def interfaces(_):
    return " ".join(name for _, name in socket.if_nameindex())


def terminal(command):
    master, _ = os.openpty()
    return raw(number("ioctl"), master, int(command, 0), ctypes.create_string_buffer(b"x"))


def set_user(_):
    return attempt(lambda: os.setresuid(0, 0, 0))


def effective_user(path):
    return os.popen(f"{path} -u").read().strip()


def device(kind):
    mode = {"character": 0o20600, "block": 0o60600}[kind]
    return attempt(lambda: os.mknod("/tmp/device", mode, os.makedev(1, 3)))


def old_table(_):
    """getpid by `int 0x80`, in a copy."""
    if platform.machine() != "x86_64":
        return "killed by 31"
    child = os.fork()
    if child == 0:
        code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
        address = ctypes.addressof(ctypes.c_char.from_buffer(code))
        ctypes.CFUNCTYPE(ctypes.c_int)(address)()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return f"killed by {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "done"


def x32_table(_):
    return raw(0x40000000 | 39) if platform.machine() == "x86_64" else "ENOSYS"


def unknown_call(_):
    return raw(9999)


def core_dumps(_):
    child = os.fork()
    if child == 0:
        os.chdir("/tmp")
        os.kill(os.getpid(), signal.SIGABRT)
    _, status = os.waitpid(child, 0)
    dumped = "dumped" if os.WCOREDUMP(status) else "not dumped"
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
        limit = "raised"
    except (OSError, ValueError):
        limit = "stays"
    return f"{dumped}, {resource.getrlimit(resource.RLIMIT_CORE)}, {limit}"


def status(field):
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(field + ":"):
                return line.split(":", 1)[1].strip()
    return "absent"


def capabilities(_):
    return " ".join(status(f"Cap{name}") for name in ("Inh", "Prm", "Eff", "Bnd", "Amb"))


def descriptors(_):
    listing = os.open("/proc/self/fd", os.O_RDONLY)
    return " ".join(sorted(name for name in os.listdir("/proc/self/fd") if int(name) not in (listing, listing + 1)))


def processes(_):
    return " ".join(sorted(open(path + "/comm").read().strip() for path in glob.glob("/proc/[0-9]*")))


def search(canary):
    """Everything readable under /proc and in the sandbox's own places."""
    needle = canary[::-1].encode()  # given backwards, so that this program does not find itself
    found = []
    for pattern in ("/proc/[0-9]*/environ", "/proc/[0-9]*/cmdline", "/tmp/*", "/run/*", "/home/agent/*", "/etc/*"):
        for path in glob.glob(pattern):
            try:
                with open(path, "rb") as file:
                    if needle in file.read():
                        found.append(path)
            except OSError:
                pass
    return " ".join(found) or "nothing"


def kill_first(_):
    os.kill(1, signal.SIGKILL)
    os.kill(1, signal.SIGTERM)
    os.kill(1, signal.SIGSTOP)
    return "survived"


def shared_memory(key):
    return raw({0: 29, 1: 194}[MACHINE], int(key), 1, 0)


def namespaces(_):
    return " ".join(sorted(f"{kind}={os.readlink('/proc/self/ns/' + kind)}" for kind in ("ipc", "mnt", "net", "pid", "user", "uts", "cgroup")))


def personality(value):
    return raw({0: 135, 1: 92}[MACHINE], int(value, 0))


def exchange(paths):
    """Exchanges two names for one another for as long as the sandbox is there."""
    one, other = (path.encode() for path in paths.split(","))
    print("exchanging", flush=True)
    while LIBC.renameat2(-100, one, -100, other, 2) == 0:
        pass
    return name_of(ctypes.get_errno())


def overwrite_program(_):
    """The program that executes us, by way of /proc."""
    return " ".join(open_write(path) for path in ("/proc/1/exe", "/proc/self/exe"))


def main():
    action, argument = sys.argv[1], (sys.argv[2:] or [""])[0]
    print(globals()[action](argument))


main()
