"""The fault campaign: a real cluster under real faults with real clients, and what they saw.

    campaign.py --program target/release/psdb [--nodes 3] [--rounds 3] [--seconds 12] [--faults kill,pause,...] [--directory D]

Each round of each fault: clients work for a while, the fault comes over the node of the primary, it goes, the replicas become
complete again. Histories go to DIRECTORY/history-*.jsonl, to be checked by the checker beside this file. Exits with 1 when an
operation failed, with 0 else; what namespaces are needed for is left out, and said so, where there are none.
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
CLIENT_PROCESSES = 3
NAMESPACE = "faults.lists"
# The faults, and the seconds that each lasts.
FAULTS = {faults.kill: 3, faults.pause: 4, faults.handover: 1, faults.rolling: 0.5, faults.partition: 4, faults.deaf: 4,
          faults.mute: 4, faults.wipe: 1}


def run_round(cluster, fault, number, seconds, directory, summary):
    client = connect(cluster.uri())
    client.faults.lists.update_one({"_id": "warm"}, {"$push": {"v": 0}}, upsert=True)
    await_complete(client, min(len(cluster.nodes), 3))
    node = primary_of(client, NAMESPACE)
    others = [other.number for other in cluster.nodes if other.number != node]
    name = fault.__name__
    tag = f"{name}-{number}"
    # Clients come by other routers than the faulted node's, and for a kill by all of them.
    routers = None if fault in (faults.kill, faults.handover, faults.rolling) else others
    clients = []
    for process in range(CLIENT_PROCESSES):
        output = os.path.join(directory, f"history-{tag}-{process}.jsonl")
        words = [sys.executable, os.path.join(HERE, "workload.py"), cluster.uri(routers), output,
                 str(process + 1), str(seconds), tag]
        if cluster.network:
            words = cluster.network.command(CLIENTS, words)
        clients.append((subprocess.Popen(words), output))
    time.sleep(seconds / 4)
    for wait in fault(cluster, node, others, FAULTS[fault]):
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
    summary.append((name, number, operations, len(unknown), longest / 1e6))
    print(f"{name:10} round {number}: {operations:7} operations, {len(unknown)} failed, "
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
    arguments.add_argument("--faults", default=",".join(fault.__name__ for fault in FAULTS))
    arguments.add_argument("--directory")
    given = arguments.parse_args()
    directory = given.directory or tempfile.mkdtemp(prefix="psdb-faults-")
    os.makedirs(directory, exist_ok=True)
    chosen = faults.named(arguments, given.faults, FAULTS)
    summary = []
    with faults.running_cluster(given.program, directory, given.nodes, chosen) as (cluster, possible):
        for number in range(given.rounds):
            for fault in possible:
                run_round(cluster, fault, number, given.seconds, directory, summary)
    print(f"{'fault':10} {'runs':>5} {'p50':>8} {'p99':>8} {'longest':>8}  pause that clients saw, ms")
    for name in dict.fromkeys(row[0] for row in summary):
        pauses = sorted(row[4] for row in summary if row[0] == name)
        print(f"{name:10} {len(pauses):5} {at(pauses, 50):8.1f} {at(pauses, 99):8.1f} {pauses[-1]:8.1f}")
    operations = sum(row[2] for row in summary)
    failed = sum(row[3] for row in summary)
    print(f"{operations} operations, {len(summary)} faults, {failed} failed operations, "
          f"longest pause {max(row[4] for row in summary):.1f} ms; histories in {directory}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
