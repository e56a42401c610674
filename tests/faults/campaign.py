"""The fault campaign: a real cluster under real faults with real clients, and what they saw.

    campaign.py --program target/release/psdb [--nodes 3] [--rounds 3] [--seconds 12] [--faults kill,pause,...] [--directory D]

Each round of each fault: clients work for a while, the fault comes over the node of the primary, it goes, the replicas become
complete again. Histories go to DIRECTORY/history-*.jsonl, to be checked by the checker beside this file. Exits with 1 when an
operation failed, with 0 else; what namespaces are needed for is left out, and said so, where there are none.
"""

import argparse
import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

from cluster import Cluster, await_complete, connect, primary_of
from network import CLIENTS, Network, Unavailable

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENT_PROCESSES = 3
NAMESPACE = "faults.lists"


def kill(cluster, node, others):
    cluster.kill(node)
    yield 3
    cluster.start(node)


def pause(cluster, node, others):
    cluster.signal(node, signal.SIGSTOP)
    yield 4
    cluster.signal(node, signal.SIGCONT)


def handover(cluster, node, others):
    cluster.stop(node)
    yield 1
    cluster.start(node)


def rolling(cluster, node, others):
    for each in [node, *others]:
        cluster.stop(each)
        yield 0.5
        cluster.start(each)
        yield 2


def partition(cluster, node, others):
    for other in [*others, CLIENTS]:
        cluster.network.deafen(node, other)
    for other in others:
        cluster.network.deafen(other, node)
    yield 4
    cluster.network.heal()


def deaf(cluster, node, others):
    for other in others:
        cluster.network.deafen(node, other)
    yield 4
    cluster.network.heal()


def mute(cluster, node, others):
    for other in others:
        cluster.network.deafen(other, node)
    yield 4
    cluster.network.heal()


def wipe(cluster, node, others):
    cluster.kill(node)
    yield 1
    cluster.wipe(node)
    cluster.start(node)
    yield 3


FAULTS = {f.__name__: f for f in (kill, pause, handover, rolling, partition, deaf, mute, wipe)}
# From <linux/sched.h>.
CLONE_NEWNET = 0x40000000
NEED_NAMESPACES = {"partition", "deaf", "mute"}


def run_round(cluster, fault, number, seconds, directory, summary):
    client = connect(cluster.uri())
    client.faults.lists.update_one({"_id": "warm"}, {"$push": {"v": 0}}, upsert=True)
    await_complete(client, min(len(cluster.nodes), 3))
    node = primary_of(client, NAMESPACE)
    others = [other.number for other in cluster.nodes if other.number != node]
    tag = f"{fault}-{number}"
    # Clients come by other routers than the faulted node's, and for a kill by all of them.
    routers = None if fault in ("kill", "handover", "rolling") else others
    clients = []
    for process in range(CLIENT_PROCESSES):
        output = os.path.join(directory, f"history-{tag}-{process}.jsonl")
        words = [sys.executable, os.path.join(HERE, "workload.py"), cluster.uri(routers), output,
                 str(process + 1), str(seconds), tag]
        if cluster.network:
            words = cluster.network.command(CLIENTS, words)
        clients.append((subprocess.Popen(words), output))
    time.sleep(seconds / 4)
    for wait in FAULTS[fault](cluster, node, others):
        time.sleep(wait)
    operations, unknown, longest = 0, [], 0
    for process, output in clients:
        if process.wait() != 0:
            raise RuntimeError(f"a client ended with {process.returncode}")
        for line in open(output):
            entry = json.loads(line)
            operations += 1
            longest = max(longest, entry["end"] - entry["start"])
            if entry["outcome"] != "ok":
                unknown.append(entry)
    await_complete(client, min(len(cluster.nodes), 3))
    summary.append((fault, number, operations, len(unknown), longest / 1e6))
    print(f"{fault:10} round {number}: {operations:7} operations, {len(unknown)} failed, "
          f"longest pause {longest / 1e6:8.1f} ms, primary was on n{node}", flush=True)
    for entry in unknown[:3]:
        print("   ", entry, flush=True)
    client.close()


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--program", default="target/release/psdb")
    arguments.add_argument("--nodes", type=int, default=3)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--seconds", type=float, default=12)
    arguments.add_argument("--faults", default=",".join(FAULTS))
    arguments.add_argument("--directory")
    given = arguments.parse_args()
    directory = given.directory or tempfile.mkdtemp(prefix="psdb-faults-")
    os.makedirs(directory, exist_ok=True)
    faults = given.faults.split(",")
    network = None
    try:
        network = Network(given.nodes, str(random.randrange(1 << 16)))
    except Unavailable as reason:
        left_out = NEED_NAMESPACES.intersection(faults)
        print(f"skipped {sorted(left_out)}: no network namespaces here: {reason}", flush=True)
        faults = [fault for fault in faults if fault not in NEED_NAMESPACES]
    cluster = Cluster(os.path.abspath(given.program), directory, given.nodes, network)
    summary = []
    try:
        enter(network)
        cluster.start_all()
        for number in range(given.rounds):
            for fault in faults:
                run_round(cluster, fault, number, given.seconds, directory, summary)
    finally:
        cluster.stop_all()
        if network:
            network.remove()
    print(f"{'fault':10} {'runs':>5} {'p50':>8} {'p99':>8} {'longest':>8}  pause that clients saw, ms")
    for fault in faults:
        pauses = sorted(row[4] for row in summary if row[0] == fault)
        print(f"{fault:10} {len(pauses):5} {at(pauses, 50):8.1f} {at(pauses, 99):8.1f} {pauses[-1]:8.1f}")
    operations = sum(row[2] for row in summary)
    failed = sum(row[3] for row in summary)
    print(f"{operations} operations, {len(summary)} faults, {failed} failed operations, "
          f"longest pause {max(row[4] for row in summary):.1f} ms; histories in {directory}")
    sys.exit(1 if failed else 0)


def at(ordered, percent):
    """The value that so many percent of all do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def enter(network):
    """Moves this process into the clients' namespace; children that are started for a node leave it again."""
    if network:
        handle = os.open(f"/run/netns/{network.namespace(CLIENTS)}", os.O_RDONLY)
        # Python has os.setns from version 3.12 on.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(handle, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "entering the clients' namespace failed")
        os.close(handle)


if __name__ == "__main__":
    main()
