"""The fault campaign: a real cluster under real faults with real clients, and what they saw.

    campaign.py --program target/release/psdb [--nodes 3] [--rounds 2] [--seconds 12] [--faults kill,pause,...] [--directory D]
                [--work split,merge,...] [--rust-client tests/faults/client/target/release/fault-client]

Each round of each fault: clients work for a while, the fault comes over the node of a primary, it goes, the replicas become
complete again. With `--work`, a round is one of a kind of work and a fault: the work is begun, and in the middle of it the fault
comes over the node of the primary of the shard that is concerned, or of the catalog's leader. At the end of a round every document
is in one shard, the one that owns it. Histories go to DIRECTORY/history-*.jsonl, to be checked by the checker beside this file.
Exits with 1 when an operation or a check failed, work was not done, or a primary stayed on a disk that takes no writes, with 0
else. What namespaces or disks of their own are needed for is left out, and said so, where there are none.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

import faults
import work
from cluster import await_complete, await_primaries, connect, primaries, status
from faults import at
from network import CLIENTS
from shards import catalog_leader, shard_collection, wrongs

HERE = os.path.dirname(os.path.abspath(__file__))
# Processes with higher numbers than these use the Rust driver.
CLIENT_PROCESSES = 3
RUST_CLIENT_PROCESSES = 2
NAMESPACE = "faults.lists"
# The faults, and the seconds that each lasts.
FAULTS = {faults.kill: 3, faults.pause: 4, faults.handover: 1, faults.rolling: 0.5, faults.partition: 4, faults.deaf: 4,
          faults.mute: 4, faults.wipe: 1, faults.full: 4, faults.scarce: 3, faults.stall: 4}
BY_ALL_ROUTERS = {faults.kill, faults.handover, faults.rolling, faults.full, faults.scarce, faults.stall}


# The faults that work is combined with, unless others are named.
WORK_FAULTS = (faults.kill, faults.pause, faults.partition)


class Round:
    """One fault: its clients, and what they were told."""

    def __init__(self, name, number, fault, node):
        self.name, self.number, self.node = name, number, node
        self.must_move, self.stayed = fault in faults.MOVE_THE_PRIMARY, False
        self.operations, self.by_rust, self.longest, self.failed, self.wrongs = 0, 0, 0, [], []
        self.work_s, self.work_said, self.refusals = 0, "", []

    def add(self, entry):
        self.operations += 1
        self.by_rust += entry["process"] > CLIENT_PROCESSES
        self.longest = max(self.longest, entry["end"] - entry["start"])
        if entry["outcome"] != "ok":
            self.failed.append(entry)

    def note_primary(self, before, after):
        """Terms and nodes of the shard's primaries. A term that is another shows that the primary was elsewhere meanwhile."""
        self.stayed = self.must_move and before == after
        if after is None:
            went = "its shard is gone"
        elif after[1] != self.node:
            went = f"went to n{after[1]}"
        else:
            went = "stayed there" if after == before else "is there again"
        self.work_said = f"primary was on n{self.node} and {went}"

    def note_work(self, task, role, moment):
        self.work_s = task.took_s
        self.work_said = (f"work on shard {task.shard} took {task.took_s:.2f} s, {len(task.refusals)} requests failed, "
                          f"n{self.node} ({role}) was faulted {moment}")
        if task.failure:
            self.wrongs.append(f"the work failed: {task.failure}")
        self.refusals = task.refusals[:2]

    def show(self):
        print(f"{self.name:15} round {self.number}: {self.operations:7} operations, {len(self.failed)} failed, "
              f"longest pause {self.longest / 1e6:8.1f} ms, {self.work_said}", flush=True)
        for entry in self.failed[:3]:
            print("   ", entry, flush=True)
        for refusal in self.refusals:
            print("    a request failed:", refusal, flush=True)
        for wrong in self.wrongs:
            print("    WRONG:", wrong, flush=True)
        if self.stayed:
            print("    THE PRIMARY STAYED, although its disk could make nothing durable", flush=True)


def start_clients(cluster, routers, directory, tag, seconds, rust_client):
    """The processes and their histories: some with pymongo, and some with the Rust driver if there is its program."""
    programs = [[sys.executable, os.path.join(HERE, "workload.py")]] * CLIENT_PROCESSES
    if rust_client:
        programs += [[os.path.abspath(rust_client)]] * RUST_CLIENT_PROCESSES
    clients = []
    for process, program in enumerate(programs, start=1):
        output = os.path.join(directory, f"history-{tag}-{process}.jsonl")
        words = [*program, cluster.uri(routers), output, str(process), str(seconds), tag]
        if cluster.network:
            words = cluster.network.command(CLIENTS, words)
        # When the campaign is gone, the end of their input tells clients to end.
        clients.append((subprocess.Popen(words, stdin=subprocess.PIPE), output))
    return clients


def routers_of(cluster, fault, node):
    """Clients come by other routers than the faulted node's, or by all of them where that one answers or is gone."""
    return [number for number in cluster.numbers() if number != node or fault in BY_ALL_ROUTERS]


def others_than(cluster, node):
    """The other nodes, and the one that may yet come."""
    members = cluster.network.members if cluster.network else cluster.numbers()
    return [number for number in members if number not in (node, CLIENTS)]


def collect(clients, result):
    for process, output in clients:
        if process.wait() != 0:
            raise RuntimeError(f"a client ended with {process.returncode}")
        process.stdin.close()
        with open(output) as history:
            for line in history:
                result.add(json.loads(line))


def run_fault_round(cluster, fault, number, given, directory, draw):
    client = connect(cluster.uri())
    await_complete(client, cluster.replicas_wanted())
    shard, before = draw.choice(sorted(await_primaries(client, NAMESPACE).items()))
    node = before[1]
    result = Round(fault.__name__, number, fault, node)
    clients = start_clients(cluster, routers_of(cluster, fault, node), directory, f"{fault.__name__}-{number}", given.seconds,
                            given.rust_client)
    time.sleep(given.seconds / 4)
    # Not the spare ones: `rolling` goes through all that there are.
    others = [other for other in cluster.numbers() if other != node]
    for wait in fault(cluster, node, others, FAULTS[fault]):
        time.sleep(wait)
    collect(clients, result)
    await_complete(client, cluster.replicas_wanted())
    result.note_primary(before, primaries(status(client), NAMESPACE).get(shard))
    result.wrongs += wrongs(client, NAMESPACE)
    result.show()
    client.close()
    return result


def run_work_round(cluster, kind, fault, number, given, directory, draw, by_catalog):
    """A round with work in whose middle the fault comes, over the node of the catalog's leader or of the shard's primary."""
    client = connect(cluster.uri())
    await_complete(client, cluster.replicas_wanted())
    task = kind(cluster, NAMESPACE, draw)
    task.prepare()
    await_complete(client, cluster.replicas_wanted())
    node, role = victim(client, task, by_catalog)
    client.close()
    name = f"{kind.__name__.lower()}+{fault.__name__}"
    result = Round(name, number, fault, node)
    clients = start_clients(cluster, routers_of(cluster, fault, node), directory, f"{name}-{number}", given.seconds,
                            given.rust_client)
    time.sleep(given.seconds / 4)
    moment = work_and_fault(cluster, task, fault, node, draw.uniform(0, task.usual_s))
    collect(clients, result)
    result.note_work(task, role, moment)
    finish_work(cluster, task, result)
    result.show()
    return result


def work_and_fault(cluster, task, fault, node, delay):
    """Says whether the work was still under way when the fault came, so much later; returns when both are over."""
    worker = threading.Thread(target=task.carry_out, daemon=True)
    worker.start()
    time.sleep(delay)
    moment = "in its middle" if worker.is_alive() else "after it"
    for wait in fault(cluster, node, others_than(cluster, node), FAULTS[fault]):
        time.sleep(wait)
    # Drivers notice only after a while that a router is back.
    time.sleep(1)
    task.healed.set()
    worker.join()
    return moment


def finish_work(cluster, task, result):
    """Waits for complete replicas, checks the documents, and leaves as many nodes as there were."""
    client = connect(cluster.uri())
    await_complete(client, cluster.replicas_wanted())
    result.wrongs += wrongs(client, NAMESPACE)
    task.undo()
    task.client.close()
    client.close()


def victim(client, task, by_catalog):
    """The node that the fault shall come over, and why that one."""
    if by_catalog:
        return catalog_leader(status(client)), "the catalog's leader"
    return await_primaries(client, NAMESPACE)[task.shard][1], "the shard's primary"


def run_all(cluster, possible, kinds, given, directory):
    client, draw = connect(cluster.uri()), random.Random(given.seed)
    await_complete(client, cluster.replicas_wanted())
    shard_collection(client, NAMESPACE)
    client.close()
    rounds = []
    for number in range(given.rounds):
        if not kinds:
            rounds += [run_fault_round(cluster, fault, number, given, directory, draw) for fault in possible]
        for each, (kind, fault) in enumerate((kind, fault) for kind in kinds for fault in possible):
            by_catalog = (each + number) % 2 == 1
            rounds.append(run_work_round(cluster, kind, fault, number, given, directory, draw, by_catalog))
    return rounds


def show_summary(rounds, directory):
    print(f"{'fault':15} {'runs':>5} {'p50':>8} {'p99':>8} {'longest':>8}  pause that clients saw, ms")
    for name in dict.fromkeys(each.name for each in rounds):
        pauses = sorted(each.longest / 1e6 for each in rounds if each.name == name)
        took = max(each.work_s for each in rounds if each.name == name)
        work_said = f"  work at most {took:.1f} s" if took else ""
        print(f"{name:15} {len(pauses):5} {at(pauses, 50):8.1f} {at(pauses, 99):8.1f} {pauses[-1]:8.1f}{work_said}")
    operations, by_rust = sum(each.operations for each in rounds), sum(each.by_rust for each in rounds)
    failed, stayed = sum(len(each.failed) for each in rounds), sum(each.stayed for each in rounds)
    wrong = sum(len(each.wrongs) for each in rounds)
    print(f"{operations} operations ({by_rust} with the Rust driver), {len(rounds)} faults, {failed} failed operations, "
          f"{stayed} primaries that stayed, {wrong} other wrongs, "
          f"longest pause {max(each.longest for each in rounds) / 1e6:.1f} ms; histories in {directory}")
    return failed + stayed + wrong


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--program", default="target/release/psdb")
    arguments.add_argument("--nodes", type=int, default=3)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--seconds", type=float, default=12)
    arguments.add_argument("--faults", help="all, or with work kill, pause and partition, unless named here")
    arguments.add_argument("--work", help=f"of {names(work.KINDS)}; without it, there are faults alone")
    arguments.add_argument("--seed", type=int, default=1, help="what is drawn: shards, nodes, and when the fault comes")
    arguments.add_argument("--directory")
    arguments.add_argument("--rust-client", help="the program in `client`; without it, all clients use pymongo")
    given = arguments.parse_args()
    directory = given.directory or tempfile.mkdtemp(prefix="psdb-faults-")
    os.makedirs(directory, exist_ok=True)
    kinds = faults.named(arguments, given.work, work.KINDS, "work") if given.work else []
    chosen = faults.named(arguments, given.faults or names(WORK_FAULTS if kinds else FAULTS), FAULTS)
    spare = int(any(kind.needs_node for kind in kinds))
    with faults.running_cluster(given.program, directory, given.nodes, chosen, spare) as (cluster, possible):
        rounds = run_all(cluster, possible, kinds, given, directory)
    sys.exit(1 if show_summary(rounds, directory) else 0)


def names(known):
    return ",".join(each.__name__.lower() for each in known)


if __name__ == "__main__":
    main()
