"""What goes wrong on purpose in a cluster of real processes, and the cluster that it goes wrong in.

Used by the campaign and by the measurement of failover. Each fault is a generator: it does something to the node of a primary,
yields the seconds that should pass, and undoes it. `seconds` is for how long the fault lasts.
"""

import contextlib
import ctypes
import os
import random
import signal
import time

from cluster import DISK_RESERVE_BYTES, Cluster
from disks import Disks
from network import CLIENTS, Network
from system import Unavailable

# From <linux/sched.h>.
CLONE_NEWNET = 0x40000000


def kill(cluster, node, others, seconds):
    cluster.kill(node)
    yield seconds
    cluster.start(node)


def pause(cluster, node, others, seconds):
    cluster.signal(node, signal.SIGSTOP)
    yield seconds
    cluster.signal(node, signal.SIGCONT)


def handover(cluster, node, others, seconds):
    cluster.stop(node)
    yield seconds
    cluster.start(node)


def rolling(cluster, node, others, seconds):
    for each in [node, *others]:
        yield from handover(cluster, each, others, seconds)
        yield 2


def partition(cluster, node, others, seconds):
    for other in [*others, CLIENTS]:
        cluster.network.deafen(node, other)
    for other in others:
        cluster.network.deafen(other, node)
    yield seconds
    cluster.network.heal()


def deaf(cluster, node, others, seconds):
    for other in others:
        cluster.network.deafen(node, other)
    yield seconds
    cluster.network.heal()


def mute(cluster, node, others, seconds):
    for other in others:
        cluster.network.deafen(other, node)
    yield seconds
    cluster.network.heal()


def wipe(cluster, node, others, seconds):
    cluster.kill(node)
    yield seconds
    cluster.wipe(node)
    cluster.start(node)
    yield 3


def full(cluster, node, others, seconds):
    position = cluster.log_bytes(node)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        # Again and again, because a node removes files, too.
        cluster.disks.fill(node)
        yield 0.2
    cluster.disks.empty(node)
    # Who met the full disk at the last moment still has to stop.
    yield 1
    if cluster.has_ended(node):
        said = cluster.log_since(node, position)
        if FULL_DISK_SAID not in said:
            raise RuntimeError(f"n{node} ended, and not because its disk was full: {said}")
        cluster.start(node)


def scarce(cluster, node, others, seconds):
    cluster.disks.fill(node, but_bytes=DISK_RESERVE_BYTES // 2)
    yield seconds
    cluster.disks.empty(node)


def stall(cluster, node, others, seconds):
    cluster.disks.stall(node)
    yield seconds
    cluster.disks.heal()


NEED_NAMESPACES = {partition, deaf, mute}
NEED_DISKS = {full, scarce, stall}
# What a node says when it stops because its disk is full.
FULL_DISK_SAID = "No space left on device"
# A primary on such a disk can make nothing durable, or soon will not: another must take its place.
MOVE_THE_PRIMARY = {full, scarce, stall}


@contextlib.contextmanager
def running_cluster(program, directory, nodes, faults, spare=0):
    """A cluster that runs, and those of the faults that are possible here; says which are not. So many further nodes have room."""
    with contextlib.ExitStack() as undo:
        tag = str(random.randrange(1 << 16))
        network, faults = attempt(lambda: Network(nodes + spare, tag), "network namespaces", NEED_NAMESPACES, faults)
        if network:
            undo.callback(network.remove)
        disks = None
        if NEED_DISKS.intersection(faults):
            disks, faults = attempt(lambda: Disks(directory, nodes + spare), "disks of their own", NEED_DISKS, faults)
        if disks:
            undo.callback(disks.remove)
        cluster = Cluster(os.path.abspath(program), directory, nodes, network, disks)
        undo.callback(cluster.stop_all)
        if disks:
            undo.callback(disks.heal)
        enter(network)
        cluster.start_all()
        yield cluster, faults


def attempt(make, what, needed_for, faults):
    """What is made, and all faults; or where it cannot be made, nothing, and the faults that do without."""
    try:
        return make(), faults
    except Unavailable as reason:
        left_out = sorted(fault.__name__ for fault in needed_for.intersection(faults))
        print(f"skipped {left_out}: no {what} here: {reason}", flush=True)
        return None, [fault for fault in faults if fault not in needed_for]


def enter(network):
    """Moves this process into the clients' namespace; children that are started for a node leave it again."""
    if network:
        handle = os.open(f"/run/netns/{network.namespace(CLIENTS)}", os.O_RDONLY)
        # Python has os.setns from version 3.12 on.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(handle, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "entering the clients' namespace failed")
        os.close(handle)


def named(parser, text, known, what="fault"):
    """The faults with these names, divided by commas; ends the program when one is not among the known."""
    names = {each.__name__.lower(): each for each in known}
    unknown = [name for name in text.split(",") if name not in names]
    if unknown:
        parser.error(f"no {what} is called {', '.join(unknown)}; there are {', '.join(names)}")
    return [names[name] for name in text.split(",")]


def at(ordered, percent):
    """The value that so many percent of all do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
