"""How the CPU of an operation grows with the nodes and shards of a cluster.

    scale.py --program target/release/psdb [--rounds 3] [--seconds 5] [--documents 20000] [--directory D]

Two clusters on loopback, one of three nodes and three shards and one of nine nodes and ninety, each with a further node that
only routes: all clients are connected to that one, so that every request is forwarded in both. What is equal in both is, in
turn: the clients for each shard (as much of a shard's work is done together), the clients for each node, that there is one
client (nothing is done together), and the documents for each shard in an unordered `insertMany`. `psdb bench` works on the
one and the other cluster in turn; CPU is what `/proc` says of all processes of the cluster. Prints a row for each workload:
microseconds an operation (a document, for `insertMany`) in each round, and by how much the larger cluster's median exceeds
the smaller one's; before that, what both clusters take when nobody does anything.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from cluster import Cluster, await_complete, await_primaries, connect

# Nodes that hold data, and shards.
SIZES = ((3, 3), (9, 90))
CLIENTS_A_SHARD = 8
CLIENTS_A_NODE = 16
DOCUMENTS_A_SHARD = 100
INSERT_COMMANDS_MIN = 6
VALUE_BYTES = 1000
DATABASE, COLLECTION = "ycsb", "usertable"
NAMESPACE = f"{DATABASE}.{COLLECTION}"
INSERT_MANY = "insertMany"
LOADS = {
    f"{CLIENTS_A_SHARD} a shard": lambda cluster: CLIENTS_A_SHARD * cluster.shards,
    f"{CLIENTS_A_NODE} a node": lambda cluster: CLIENTS_A_NODE * cluster.nodes,
    "one client": lambda cluster: 1,
}
OPERATIONS = ("read", "update", "insert")
IDLE_S = 10
# Groups without traffic have gone to sleep by then.
SETTLING_S = 8
PORTS_APART = 1000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Measured:
    """A cluster with its sharded collection."""

    def __init__(self, program, directory, position, documents):
        self.program, self.documents = program, documents
        self.nodes, self.shards = SIZES[position]
        folder = os.path.join(directory, f"{self.nodes}-{self.shards}")
        os.makedirs(folder)
        self.cluster = Cluster(program, folder, self.nodes + 1, routers=1, first_port=27501 + position * PORTS_APART)
        self.cluster.start_all()
        self.uri = self.cluster.uri([self.nodes + 1])
        self.found = {}

    def fill(self):
        client = connect(self.uri)
        # The first shards are what is asked for: nothing is cut or moved while something is measured.
        client.admin.command({"balancerStop": 1})
        client.admin.command({"shardCollection": NAMESPACE, "key": {"_id": "hashed"}, "numInitialChunks": self.shards})
        await_primaries(client, NAMESPACE)
        await_complete(client, min(3, self.nodes))
        self.bench("load", 0, "--clients", "2", "--batch", "1000")

    def cpu_s(self):
        total = 0
        for number in self.cluster.numbers():
            with open(f"/proc/{self.cluster.pid(number)}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS_PER_S

    def bench(self, workload, seed, *words):
        words = [self.program, "bench", "--uri", self.uri, "--workload", workload, "--documents", str(self.documents),
                 "--value-bytes", str(VALUE_BYTES), "--seed", str(seed), "--json", *words]
        answer = subprocess.run(words, check=True, capture_output=True, text=True)
        return json.loads(answer.stdout)

    def insert_many(self, seed):
        """Unordered, as many documents for each shard in every command; how many documents there were."""
        collection, draw = connect(self.uri)[DATABASE][COLLECTION], random.Random(seed)
        per_command = DOCUMENTS_A_SHARD * self.shards
        commands = max(INSERT_COMMANDS_MIN, self.documents // per_command)
        for command in range(commands):
            first = command * per_command
            texts = (draw.randbytes(VALUE_BYTES // 2).hex() for _ in range(per_command))
            documents = [{"_id": f"{seed}-{first + each}", "text": text} for each, text in enumerate(texts)]
            collection.insert_many(documents, ordered=False)
        return commands * per_command

    def idle_percent(self):
        before = self.cpu_s()
        time.sleep(IDLE_S)
        return (self.cpu_s() - before) / IDLE_S * 100

    def measure(self, workload, seed, seconds):
        name, load = workload
        before = self.cpu_s()
        if name == INSERT_MANY:
            operations = self.insert_many(seed)
        else:
            clients = str(LOADS[load](self))
            operations = count(self.bench(name, seed, "--clients", clients, "--seconds", str(seconds), "--warm-up", "0"))
        self.found.setdefault(workload, []).append((self.cpu_s() - before) / operations * 1e6)


def count(report):
    if report["errors"]:
        raise RuntimeError(f"operations failed: {report}")
    return sum(operation["count"] for operation in report["operations"])


def row(workload, small, large):
    ratio = statistics.median(large.found[workload]) / statistics.median(small.found[workload])
    shown = [" ".join(f"{each:.1f}" for each in cluster.found[workload]) for cluster in (small, large)]
    return f"{', '.join(workload):22} {shown[0]:>30} us {shown[1]:>30} us   {(ratio - 1) * 100:+.1f} %"


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--program", default="target/release/psdb")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=5)
    arguments.add_argument("--documents", type=int, default=20000)
    arguments.add_argument("--directory")
    given = arguments.parse_args()
    directory = given.directory or tempfile.mkdtemp(prefix="psdb-scale-")
    clusters = []
    try:
        for position in range(len(SIZES)):
            clusters.append(Measured(os.path.abspath(given.program), directory, position, given.documents))
        for cluster in clusters:
            cluster.fill()
        time.sleep(SETTLING_S)
        for cluster in clusters:
            print(f"{cluster.nodes} nodes and a router, idle: {cluster.idle_percent():.1f}% of a core", flush=True)
        workloads = [(name, load) for load in LOADS for name in OPERATIONS] + [(INSERT_MANY, f"{DOCUMENTS_A_SHARD} a shard")]
        for number in range(given.rounds):
            for workload in workloads:
                for cluster in clusters if number % 2 == 0 else reversed(clusters):
                    cluster.measure(workload, number + 1, given.seconds)
    finally:
        for cluster in clusters:
            cluster.cluster.stop_all()
    print(f"{'':22} {'3 nodes, 3 shards':>33} {'9 nodes, 90 shards':>33}   more")
    for workload in clusters[0].found:
        print(row(workload, *clusters))
    if not given.directory:
        shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(main())
