"""A small disk of its own for each node: an ext4 file system in a file, so that it can run full and stand still.

Used by the faults. A full disk has a ballast file that takes every free block; a stalled disk is frozen, so that whoever writes
or syncs waits in the kernel. Always holds: everything that was made is removed at the end, thawed before; no other file system
is touched.
"""

import contextlib
import errno
import os
import subprocess

from system import need, run, unavailable

# The files are sparse: a disk takes of the one below it what was written to it.
SIZE_BYTES = 2 << 30
BLOCK_BYTES = 4096


class Disks:
    """Disks for nodes 1 to `count`, mounted below `directory`."""

    def __init__(self, directory, count):
        need(("mkfs.ext4", "mount", "umount", "fsfreeze"), "util-linux and e2fsprogs")
        self.directory = directory
        self.members = range(1, count + 1)
        self.frozen = set()
        try:
            for member in self.members:
                self.build(member)
            # Whether a disk can be frozen is found out before it is relied on.
            self.stall(1)
            self.heal()
        except subprocess.CalledProcessError as error:
            self.remove()
            raise unavailable(error) from error

    def path(self, member):
        return os.path.join(self.directory, f"n{member}-disk")

    def image(self, member):
        return self.path(member) + ".image"

    def ballast(self, member):
        return os.path.join(self.path(member), "ballast")

    def build(self, member):
        os.makedirs(self.path(member))
        with open(self.image(member), "wb") as image:
            image.truncate(SIZE_BYTES)
        # No blocks are kept back for root, who may well run the nodes.
        run("mkfs.ext4", "-q", "-m", "0", "-J", "size=32", self.image(member))
        run("mount", "-o", "loop", self.image(member), self.path(member))

    def fill(self, member, but_bytes=0):
        """Takes all that is free, or all but so much. What is freed after that is taken by the next call."""
        with open(self.ballast(member), "ab") as ballast:
            step = self.free_bytes(member) - but_bytes
            while step >= BLOCK_BYTES:
                try:
                    os.posix_fallocate(ballast.fileno(), os.fstat(ballast.fileno()).st_size, step)
                    step = self.free_bytes(member) - but_bytes
                except OSError as error:
                    # The node, or the file system for its own needs, was faster.
                    if error.errno != errno.ENOSPC:
                        raise
                    step //= 2

    def free_bytes(self, member):
        found = os.statvfs(self.path(member))
        return found.f_bavail * found.f_frsize

    def empty(self, member):
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.ballast(member))

    def stall(self, member):
        run("fsfreeze", "-f", self.path(member))
        self.frozen.add(member)

    def heal(self):
        """No disk stands still, and none is full."""
        for member in list(self.frozen):
            run("fsfreeze", "-u", self.path(member))
            self.frozen.discard(member)
        for member in self.members:
            self.empty(member)

    def remove(self):
        for member in self.members:
            run("umount", self.path(member), check=False)
            with contextlib.suppress(FileNotFoundError):
                os.remove(self.image(member))
            with contextlib.suppress(OSError):
                os.rmdir(self.path(member))
