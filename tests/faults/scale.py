"""How the CPU of an operation grows with the nodes and shards of a cluster.

    scale.py --program target/release/psdb [--rounds 3] [--seconds 5] [--documents 20000] [--directory D]

Two clusters on loopback, one of three nodes and three shards and one of nine nodes and ninety, each with a further node that
only routes: all clients are connected to that one, so that every request is forwarded in both. The clients of a node, or
the documents for a shard in an `insertMany`, are as many in both, so that as much travels together. `psdb bench` works on the one and
the other in turn; CPU is what `/proc` says of all processes of the cluster. Prints a row for each workload: microseconds an
operation (a document, for `insertMany`) in each round, and by how much the larger cluster's median exceeds the smaller one's.
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

from cluster import Cluster, await_complete, await_primaries, connect

# Nodes that hold data, and shards.
SIZES = ((3, 3), (9, 90))
CLIENTS_A_NODE = 16
DOCUMENTS_A_SHARD = 100
VALUE_BYTES = 1000
DATABASE, COLLECTION = "ycsb", "usertable"
NAMESPACE = f"{DATABASE}.{COLLECTION}"
INSERT_MANY = "insertMany"
WORKLOADS = ("read", "update", "insert", INSERT_MANY)
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
        commands = max(1, self.documents // per_command)
        for command in range(commands):
            first = command * per_command
            texts = (draw.randbytes(VALUE_BYTES // 2).hex() for _ in range(per_command))
            documents = [{"_id": f"{seed}-{first + each}", "text": text} for each, text in enumerate(texts)]
            collection.insert_many(documents, ordered=False)
        return commands * per_command

    def measure(self, name, seed, seconds):
        before = self.cpu_s()
        if name == INSERT_MANY:
            operations = self.insert_many(seed)
        else:
            clients = str(CLIENTS_A_NODE * self.nodes)
            operations = count(self.bench(name, seed, "--clients", clients, "--seconds", str(seconds), "--warm-up", "0"))
        self.found.setdefault(name, []).append((self.cpu_s() - before) / operations * 1e6)


def count(report):
    if report["errors"]:
        raise RuntimeError(f"operations failed: {report}")
    return sum(operation["count"] for operation in report["operations"])


def row(name, small, large):
    ratio = statistics.median(large.found[name]) / statistics.median(small.found[name])
    shown = [" ".join(f"{each:.1f}" for each in cluster.found[name]) for cluster in (small, large)]
    return f"{name:10} {shown[0]:>30} us {shown[1]:>30} us   {(ratio - 1) * 100:+.1f} %"


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
        for number in range(given.rounds):
            for name in WORKLOADS:
                for cluster in clusters if number % 2 == 0 else reversed(clusters):
                    cluster.measure(name, number + 1, given.seconds)
    finally:
        for cluster in clusters:
            cluster.cluster.stop_all()
    print(f"{'':10} {'3 nodes, 3 shards':>33} {'9 nodes, 90 shards':>33}   more")
    for name in clusters[0].found:
        print(row(name, *clusters))
    if not given.directory:
        shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(main())
