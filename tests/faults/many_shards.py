"""What many shards cost real processes: how long a node with many replicas takes to start, and what it does when nothing happens.

    many_shards.py --program target/release/psdb [--shards 1000] [--shards-each 100] [--seconds 20] [--directory D]

Three nodes on loopback, without namespaces; collections that are cut into shards, each with a replica on every node. Prints the
CPU of each node over some seconds without clients, with all nodes up and with one of them down, and the seconds from the start
of a node's process until it says at `/readyz` that it serves: by then all of its replicas are open.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request

from cluster import Cluster, Node, await_complete, connect

NODES = 3
PATIENCE_S = 600
# Longer than a group without traffic stays awake.
REST_S = 30
# By then every shard that was made has forgotten, by an entry of its own, which shard it came from.
LONG_REST_S = 90


class Watched(Cluster):
    """Whose nodes serve their health over HTTP, on ports that other scripts do not use."""

    def plan(self, number):
        directory = os.path.join(self.directory, f"n{number}")
        return Node(number, "127.0.0.1", 28500 + number, 28600 + number, directory)

    def admin(self, number):
        return f"127.0.0.1:{28700 + number}"

    def start_words(self, node):
        return [*super().start_words(node), "--admin", self.admin(node.number)]


def is_ready(cluster, number):
    try:
        with urllib.request.urlopen(f"http://{cluster.admin(number)}/readyz", timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def start_seconds(cluster, number):
    began = time.monotonic()
    cluster.start(number)
    while not is_ready(cluster, number):
        if time.monotonic() - began > PATIENCE_S:
            raise RuntimeError(f"n{number} does not serve")
        time.sleep(0.01)
    return time.monotonic() - began


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid):
    with open(f"/proc/{pid}/status") as file:
        kib = next(line.split()[1] for line in file if line.startswith("VmRSS:"))
    return int(kib) // 1024


def idle(cluster, numbers, seconds, what, rest_s=REST_S):
    """The part of a core that each node takes while nobody asks for anything."""
    time.sleep(rest_s)
    before = {number: (cpu_seconds(cluster.pid(number)), cluster.log_bytes(number)) for number in numbers}
    began = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - began
    for number in numbers:
        cpu, position = before[number]
        percent = (cpu_seconds(cluster.pid(number)) - cpu) * 100 / elapsed
        # On a machine that is too busy a node takes another one for lost, and wakes its replicas.
        lost = cluster.log_since(number, position).count("another node is lost")
        memory = memory_mib(cluster.pid(number))
        print(f"{what}: n{number} takes {percent:.1f}% of a core, {memory} MiB, lost others {lost} times", flush=True)


def cut(client, shards, each):
    began = time.monotonic()
    for number in range(shards // each):
        namespace = f"many.c{number}"
        client.admin.command("shardCollection", namespace, key={"_id": "hashed"}, numInitialChunks=each)
        client.many[f"c{number}"].insert_many([{"_id": key} for key in range(1000)])
    print(f"{shards} shards made in {time.monotonic() - began:.1f} s", flush=True)


def run(cluster, options):
    cluster.start_all()
    client = connect(cluster.uri())
    await_complete(client, NODES)
    cut(client, options.shards, options.shards_each)
    await_complete(client, NODES, PATIENCE_S)
    # Making primaries even after so many splits takes it a while, and is not what is measured here.
    client.admin.command("balancerStop")
    client.close()
    numbers = cluster.numbers()
    idle(cluster, numbers, options.seconds, "idle, just made")
    idle(cluster, numbers, options.seconds, "idle", LONG_REST_S)
    for how, end in (("kill -9", cluster.kill), ("a clean stop", cluster.stop)):
        for number in numbers:
            end(number)
            print(f"n{number} serves {start_seconds(cluster, number):.2f} s after its start, after {how}", flush=True)
            client = connect(cluster.uri())
            await_complete(client, NODES, PATIENCE_S)
            client.close()
    idle(cluster, numbers, options.seconds, "idle, restarted")
    lost = numbers[-1]
    cluster.kill(lost)
    idle(cluster, numbers[:-1], options.seconds, f"idle without n{lost}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--shards-each", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--directory")
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="psdb-many-shards-", dir=options.directory)
    cluster = Watched(os.path.abspath(options.program), directory, NODES)
    try:
        run(cluster, options)
        cluster.stop_all()
        shutil.rmtree(directory, ignore_errors=True)
    except BaseException:
        # What the nodes said may tell why.
        print(f"the nodes' logs and data are in {directory}", file=sys.stderr)
        cluster.stop_all()
        raise


if __name__ == "__main__":
    sys.exit(main())
