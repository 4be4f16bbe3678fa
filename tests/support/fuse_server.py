"""A FUSE file system that can be made to hang, as a process of its own: ``fuse_server.py MOUNT_POINT BACKING``.

It passes everything through to the directory BACKING.  A line ``hang`` on its standard input stops all answers, until
``answer`` comes.  The kernel caches nothing, so each stat(2) and open(2) sends a request.

Source: include/uapi/linux/fuse.h.  It opens /dev/fuse itself, since the kernel requires the user namespace of
the mount (fs/fuse/inode.c, fuse_fill_super).
"""

import ctypes
import errno
import os
import select
import struct
import sys

IN = struct.Struct("IIQQIIII")
OUT = struct.Struct("IiQ")
ATTR = struct.Struct("QQQQQQIIIIIIIIII")
BUFFER = 1 << 20
NOFLUSH = 1 << 5  # FOPEN_NOFLUSH: close(2) sends no request


class Server:
    def __init__(self, descriptor: int, backing: str) -> None:
        self.descriptor = descriptor
        self.paths = {1: backing}
        self.ids = {backing: 1}
        self.last = 1
        self.directories: dict[int, list[str]] = {}

    def attr(self, path: str) -> bytes:
        found = os.lstat(path)
        times = [divmod(ns, 10**9) for ns in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)]
        return ATTR.pack(
            found.st_ino,
            found.st_size,
            found.st_blocks,
            *(seconds for seconds, _ in times),
            *(ns for _, ns in times),
            found.st_mode,
            found.st_nlink,
            found.st_uid,
            found.st_gid,
            found.st_rdev,
            found.st_blksize,
            0,
        )

    def entry(self, path: str) -> bytes:
        attr = self.attr(path)
        if path not in self.ids:
            self.last += 1
            self.ids[path] = self.last
        node = self.ids[path]
        self.paths[node] = path
        return struct.pack("QQQQII", node, 1, 0, 0, 0, 0) + attr

    def answer(self, request: bytes) -> None:
        length, opcode, unique, node, *_ = IN.unpack_from(request)
        body = request[IN.size : length]
        handler = getattr(self, f"op_{opcode}", None)
        if opcode in (2, 42):  # FORGET, BATCH_FORGET: without an answer
            return
        error, data = 0, b""
        try:
            if handler is None:
                error = errno.ENOSYS
            else:
                data = handler(self.paths.get(node, ""), body)
        except OSError as failure:
            error = failure.errno or errno.EIO
        os.write(self.descriptor, OUT.pack(OUT.size + len(data), -error, unique) + data)

    def child(self, path: str, name: bytes) -> str:
        return os.path.join(path, os.fsdecode(name.split(b"\0")[0]))

    def op_1(self, path: str, body: bytes) -> bytes:  # LOOKUP
        return self.entry(self.child(path, body))

    def op_3(self, path: str, _: bytes) -> bytes:  # GETATTR
        return struct.pack("QII", 0, 0, 0) + self.attr(path)

    def op_4(self, path: str, body: bytes) -> bytes:  # SETATTR
        valid, _, _, size = struct.unpack_from("IIQQ", body)
        (mode,) = struct.unpack_from("I", body, 68)
        if valid & 1:
            os.chmod(path, mode & 0o7777)
        if valid & 8:
            os.truncate(path, size)
        return self.op_3(path, b"")

    def op_5(self, path: str, _: bytes) -> bytes:  # READLINK
        return os.fsencode(os.readlink(path))

    def op_9(self, path: str, body: bytes) -> bytes:  # MKDIR
        mode, _ = struct.unpack_from("II", body)
        os.mkdir(self.child(path, body[8:]), mode)
        return self.entry(self.child(path, body[8:]))

    def op_10(self, path: str, body: bytes) -> bytes:  # UNLINK
        os.unlink(self.child(path, body))
        self.ids.pop(self.child(path, body), None)
        return b""

    def rename(self, path: str, new: int, names: bytes) -> bytes:
        before, after, *_ = names.split(b"\0")
        old_path, new_path = self.child(path, before), self.child(self.paths[new], after)
        os.rename(old_path, new_path)
        self.ids.pop(new_path, None)
        node = self.ids.pop(old_path, None)
        if node is not None:
            self.ids[new_path], self.paths[node] = node, new_path
        return b""

    def op_12(self, path: str, body: bytes) -> bytes:  # RENAME
        return self.rename(path, struct.unpack_from("Q", body)[0], body[8:])

    def op_45(self, path: str, body: bytes) -> bytes:  # RENAME2
        return self.rename(path, struct.unpack_from("Q", body)[0], body[16:])

    def op_14(self, path: str, body: bytes) -> bytes:  # OPEN
        (flags,) = struct.unpack_from("I", body)
        return struct.pack("QII", os.open(path, flags & os.O_ACCMODE), NOFLUSH, 0)

    def op_15(self, _: str, body: bytes) -> bytes:  # READ
        handle, offset, size = struct.unpack_from("QQI", body)
        return os.pread(handle, size, offset)

    def op_16(self, _: str, body: bytes) -> bytes:  # WRITE
        handle, offset, size = struct.unpack_from("QQI", body)
        return struct.pack("II", os.pwrite(handle, body[40 : 40 + size], offset), 0)

    def op_17(self, path: str, _: bytes) -> bytes:  # STATFS
        found = os.statvfs(path)
        numbers = (found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree)
        return struct.pack("QQQQQIIII24x", *numbers, found.f_bsize, found.f_namemax, found.f_frsize, 0)

    def op_18(self, _: str, body: bytes) -> bytes:  # RELEASE
        (handle,) = struct.unpack_from("Q", body)
        os.close(handle)
        return b""

    def op_20(self, _: str, __: bytes) -> bytes:  # FSYNC
        return b""

    def op_26(self, _: str, body: bytes) -> bytes:  # INIT
        major, minor, readahead, _ = struct.unpack_from("IIII", body)
        return struct.pack("IIIIHHIIHHI28x", major, min(minor, 31), readahead, 0, 0, 0, 1 << 16, 1, 16, 0, 0)

    def op_27(self, path: str, _: bytes) -> bytes:  # OPENDIR
        handle = len(self.directories) + 1
        self.directories[handle] = os.listdir(path)
        return struct.pack("QII", handle, 0, 0)

    def op_28(self, path: str, body: bytes) -> bytes:  # READDIR
        handle, offset, size = struct.unpack_from("QQI", body)
        found = b""
        for number, name in enumerate(self.directories[handle]):
            if number < offset:
                continue
            encoded = os.fsencode(name)
            kind = os.lstat(os.path.join(path, name)).st_mode >> 12
            row = struct.pack("QQII", 1, number + 1, len(encoded), kind) + encoded
            row += bytes(-len(row) % 8)
            if len(found) + len(row) > size:
                break
            found += row
        return found

    def op_29(self, _: str, __: bytes) -> bytes:  # RELEASEDIR
        return b""

    def op_35(self, path: str, body: bytes) -> bytes:  # CREATE
        flags, mode = struct.unpack_from("II", body)
        target = self.child(path, body[16:])
        handle = os.open(target, flags & ~os.O_NOFOLLOW, mode)
        return self.entry(target) + struct.pack("QII", handle, NOFLUSH, 0)


def main(mount_point: str, backing: str) -> None:
    descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if libc.mount(b"fuse", os.fsencode(mount_point), b"fuse", 0, options) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), mount_point)
    print("mounted", flush=True)  # noqa: T201  to the test
    server = Server(descriptor, backing)
    hanging = False
    while True:
        readable, _, _ = select.select([0] if hanging else [0, descriptor], [], [])
        if 0 in readable:
            line = sys.stdin.readline().strip()
            if not line:
                return
            hanging = line == "hang"
            print(line, flush=True)  # noqa: T201  to the test
        elif readable:
            try:
                request = os.read(descriptor, BUFFER)
            except OSError as error:  # interrupted requests are taken back; ENODEV is the unmount
                if error.errno == errno.ENODEV:
                    return
                continue
            server.answer(request)


if __name__ == "__main__":
    main(*sys.argv[1:])
