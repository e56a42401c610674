"""The fault campaign: a real cluster under real faults with real clients, and what they saw.

    campaign.py --program target/release/psdb [--nodes 3] [--rounds 2] [--seconds 12] [--faults kill,pause,...] [--directory D]
                [--rust-client tests/faults/client/target/release/fault-client]

Each round of each fault: clients work for a while, the fault comes over the node of the primary, it goes, the replicas become
complete again. Histories go to DIRECTORY/history-*.jsonl, to be checked by the checker beside this file. Exits with 1 when an
operation failed or a primary stayed on a disk that takes no writes, with 0 else. What namespaces or disks of their own are needed
for is left out, and said so, where there are none.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import faults
from cluster import await_complete, connect, primary_of
from faults import at
from network import CLIENTS

HERE = os.path.dirname(os.path.abspath(__file__))
# Processes with higher numbers than these use the Rust driver.
CLIENT_PROCESSES = 3
RUST_CLIENT_PROCESSES = 2
NAMESPACE = "faults.lists"
# The faults, and the seconds that each lasts.
FAULTS = {faults.kill: 3, faults.pause: 4, faults.handover: 1, faults.rolling: 0.5, faults.partition: 4, faults.deaf: 4,
          faults.mute: 4, faults.wipe: 1, faults.full: 4, faults.scarce: 3, faults.stall: 4}
BY_ALL_ROUTERS = {faults.kill, faults.handover, faults.rolling, faults.full, faults.scarce, faults.stall}


class Round:
    """One fault: its clients, and what they were told."""

    def __init__(self, fault, number, primary):
        self.name, self.number, self.primary = fault.__name__, number, primary
        self.must_move, self.stayed = fault in faults.MOVE_THE_PRIMARY, False
        self.operations, self.by_rust, self.longest, self.failed = 0, 0, 0, []

    def add(self, entry):
        self.operations += 1
        self.by_rust += entry["process"] > CLIENT_PROCESSES
        self.longest = max(self.longest, entry["end"] - entry["start"])
        if entry["outcome"] != "ok":
            self.failed.append(entry)

    def show(self, primary_after):
        stays = primary_after == self.primary
        moved = "stayed there" if stays else f"went to n{primary_after}"
        print(f"{self.name:10} round {self.number}: {self.operations:7} operations, {len(self.failed)} failed, "
              f"longest pause {self.longest / 1e6:8.1f} ms, primary was on n{self.primary} and {moved}", flush=True)
        for entry in self.failed[:3]:
            print("   ", entry, flush=True)
        self.stayed = stays and self.must_move
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


def run_round(cluster, fault, number, given, directory):
    client = connect(cluster.uri())
    client.faults.lists.update_one({"_id": "warm"}, {"$push": {"v": 0}}, upsert=True)
    await_complete(client, min(len(cluster.nodes), 3))
    node = primary_of(client, NAMESPACE)
    others = [other.number for other in cluster.nodes if other.number != node]
    # Clients come by other routers than the faulted node's, or by all of them where that one answers or is gone.
    routers = None if fault in BY_ALL_ROUTERS else others
    tag = f"{fault.__name__}-{number}"
    clients = start_clients(cluster, routers, directory, tag, given.seconds, given.rust_client)
    time.sleep(given.seconds / 4)
    result = Round(fault, number, node)
    for wait in fault(cluster, node, others, FAULTS[fault]):
        time.sleep(wait)
    for process, output in clients:
        if process.wait() != 0:
            raise RuntimeError(f"a client ended with {process.returncode}")
        process.stdin.close()
        with open(output) as history:
            for line in history:
                result.add(json.loads(line))
    await_complete(client, min(len(cluster.nodes), 3))
    result.show(primary_of(client, NAMESPACE))
    client.close()
    return result


def show_summary(rounds, directory):
    print(f"{'fault':10} {'runs':>5} {'p50':>8} {'p99':>8} {'longest':>8}  pause that clients saw, ms")
    for name in dict.fromkeys(each.name for each in rounds):
        pauses = sorted(each.longest / 1e6 for each in rounds if each.name == name)
        print(f"{name:10} {len(pauses):5} {at(pauses, 50):8.1f} {at(pauses, 99):8.1f} {pauses[-1]:8.1f}")
    operations, by_rust = sum(each.operations for each in rounds), sum(each.by_rust for each in rounds)
    failed, stayed = sum(len(each.failed) for each in rounds), sum(each.stayed for each in rounds)
    print(f"{operations} operations ({by_rust} with the Rust driver), {len(rounds)} faults, {failed} failed operations, "
          f"{stayed} primaries that stayed, longest pause {max(each.longest for each in rounds) / 1e6:.1f} ms; "
          f"histories in {directory}")
    return failed + stayed


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--program", default="target/release/psdb")
    arguments.add_argument("--nodes", type=int, default=3)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--seconds", type=float, default=12)
    arguments.add_argument("--faults", default=",".join(fault.__name__ for fault in FAULTS))
    arguments.add_argument("--directory")
    arguments.add_argument("--rust-client", help="the program in `client`; without it, all clients use pymongo")
    given = arguments.parse_args()
    directory = given.directory or tempfile.mkdtemp(prefix="psdb-faults-")
    os.makedirs(directory, exist_ok=True)
    chosen = faults.named(arguments, given.faults, FAULTS)
    rounds = []
    with faults.running_cluster(given.program, directory, given.nodes, chosen) as (cluster, possible):
        for number in range(given.rounds):
            for fault in possible:
                rounds.append(run_round(cluster, fault, number, given, directory))
    sys.exit(1 if show_summary(rounds, directory) else 0)


if __name__ == "__main__":
    main()
