"""What goes wrong on purpose in a cluster of real processes, and the cluster that it goes wrong in.

Used by the campaign and by the measurement of failover. Each fault is a generator: it does something to the node of a primary,
yields the seconds that should pass, and undoes it. `seconds` is for how long the fault lasts.
"""

import contextlib
import ctypes
import os
import random
import signal

from cluster import Cluster
from network import CLIENTS, Network, Unavailable

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


NEED_NAMESPACES = {partition, deaf, mute}


@contextlib.contextmanager
def running_cluster(program, directory, nodes, faults):
    """A cluster that runs, and those of the faults that are possible here; says which are not."""
    network = None
    try:
        network = Network(nodes, str(random.randrange(1 << 16)))
    except Unavailable as reason:
        left_out = sorted(fault.__name__ for fault in NEED_NAMESPACES.intersection(faults))
        print(f"skipped {left_out}: no network namespaces here: {reason}", flush=True)
        faults = [fault for fault in faults if fault not in NEED_NAMESPACES]
    cluster = Cluster(os.path.abspath(program), directory, nodes, network)
    try:
        enter(network)
        cluster.start_all()
        yield cluster, faults
    finally:
        cluster.stop_all()
        if network:
            network.remove()


def enter(network):
    """Moves this process into the clients' namespace; children that are started for a node leave it again."""
    if network:
        handle = os.open(f"/run/netns/{network.namespace(CLIENTS)}", os.O_RDONLY)
        # Python has os.setns from version 3.12 on.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(handle, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "entering the clients' namespace failed")
        os.close(handle)


def named(parser, text, known):
    """The faults with these names, divided by commas; ends the program when one is not among the known."""
    names = {fault.__name__: fault for fault in known}
    unknown = [name for name in text.split(",") if name not in names]
    if unknown:
        parser.error(f"no fault is called {', '.join(unknown)}; there are {', '.join(names)}")
    return [names[name] for name in text.split(",")]


def at(ordered, percent):
    """The value that so many percent of all do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
