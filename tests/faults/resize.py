"""How long it takes to split a shard, and to move a replica of one, and what clients feel of it.

    resize.py --program target/release/psdb [--gib 1] [--seconds 10] [--cuts 50] [--directory D]

Four nodes on loopback, without namespaces, of which three have the shard at first; documents of 1 KB in one collection; the
balancer is stopped. Without any client the shard is split in two, and the replica of a half's primary is moved to the fourth node.
Then the same beside clients that insert, update and read, and a number of splits and merges of a small collection that others write
to. Prints seconds, MiB a second, the clients' operations per second as a part of those before, and for how long shards were
sealed, as the nodes' logs say. Exits with 1 when an operation failed.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time

from cluster import REPLICAS_MAX, Cluster, await_complete, connect, replicas, status
from rebuild import DOCUMENT_BYTES, PATIENCE_S, Clients, document, fill, rate
from shards import chunks, is_resharding, left_over

NODES = 4
NAMESPACE = "faults.documents"
SMALL = "faults.small"
SMALL_DOCUMENTS = 2000
POLL_S = 0.05
SEALED = re.compile(r"sealed_ms=(\d+)")
MIB = 1 << 20


def await_still(client):
    """Until no shard is cut, none moves, and nothing is left of those that were."""
    deadline = time.monotonic() + PATIENCE_S
    while any(is_resharding(client, namespace) for namespace in (NAMESPACE, SMALL)) or left_over(status(client)):
        if time.monotonic() > deadline:
            raise RuntimeError("the shards do not come to rest")
        time.sleep(POLL_S)
    await_complete(client, REPLICAS_MAX, PATIENCE_S)


def cut(client, command, namespace, bounds):
    """Splits or merges; returns when the new shards are in use."""
    client.admin.command({command: namespace, "bounds": bounds})
    while is_resharding(client, namespace):
        time.sleep(POLL_S)


def split_first(client, namespace):
    first = chunks(client, namespace)[0]
    cut(client, "split", namespace, [first["min"], first["max"]])


def merge_all(client, namespace):
    found = chunks(client, namespace)
    cut(client, "mergeChunks", namespace, [found[0]["min"], found[-1]["max"]])


def size(answer, shard):
    return max(replica["bytes"] for _, replica in replicas(answer) if replica["shard"] == shard)


def move_replica(client, chunk):
    """Moves the primary's replica of the shard to the node that has none. Returns its bytes once all of that is over."""
    answer, shard = status(client), chunk["psdbShard"]
    placed = next(each for each in answer["shards"] if each["shard"] == shard)
    held = [replica["node"] for replica in placed["replicas"]]
    taker = next(node["name"] for node in answer["nodes"] if node["node"] not in held)
    client.admin.command({"moveChunk": NAMESPACE, "bounds": [chunk["min"], chunk["max"]], "to": taker})
    await_still(client)
    return size(answer, shard)


def timed(done, what):
    found = []
    share, seconds = rate(done, lambda: found.append(what()))
    return found[0], share, seconds


def resize(client, done, usual, gib):
    """One split and one move of a replica; with clients, what part of their usual operations they did."""
    def part(rate_meanwhile):
        return f", clients {rate_meanwhile / usual * 100:.0f} % of {usual:.0f} operations/s" if usual else ""

    _, meanwhile, seconds = timed(done, lambda: split_first(client, NAMESPACE))
    print(f"split of {gib} GiB: {seconds:.1f} s, {gib * 1024 / seconds:.1f} MiB/s{part(meanwhile)}", flush=True)
    await_still(client)
    moved, meanwhile, seconds = timed(done, lambda: move_replica(client, chunks(client, NAMESPACE)[0]))
    print(f"move of a replica of {moved / MIB:.0f} MiB: {seconds:.1f} s, {moved / MIB / seconds:.1f} MiB/s{part(meanwhile)}",
          flush=True)
    merge_all(client, NAMESPACE)
    await_still(client)


def sealed_ms(cluster):
    found = []
    for number in cluster.numbers():
        found += [int(ms) for ms in SEALED.findall(cluster.log_since(number, 0))]
    return sorted(found)


def percentile(values, percent):
    return values[min(len(values) - 1, len(values) * percent // 100)]


def measure(cluster, gib, seconds, cuts):
    client = connect(cluster.uri())
    client.admin.command({"balancerStop": 1})
    for namespace in (NAMESPACE, SMALL):
        client.admin.command({"shardCollection": namespace, "key": {"_id": "hashed"}, "numInitialChunks": 1})
    client.faults.small.insert_many([document(key) for key in range(SMALL_DOCUMENTS)])
    count = int(gib * (1 << 30) / DOCUMENT_BYTES)
    fill(cluster.uri(), count)
    await_still(client)
    resize(client, [0], 0, gib)

    clients = Clients(cluster.uri(), count)
    done = clients.done
    usual, _ = rate(done, lambda: time.sleep(seconds))
    resize(client, done, usual, gib)
    for _ in range(cuts):
        split_first(client, SMALL)
        merge_all(client, SMALL)
    told = clients.end()
    sealed = sealed_ms(cluster)
    print(f"{len(sealed)} shards sealed: p50 {percentile(sealed, 50)} ms, p99 {percentile(sealed, 99)} ms, "
          f"longest {sealed[-1]} ms; {len(told)} of {sum(done)} operations failed")
    return told


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--program", default="target/release/psdb")
    arguments.add_argument("--gib", type=float, default=1)
    arguments.add_argument("--seconds", type=float, default=10, help="how long clients work before anything is moved")
    arguments.add_argument("--cuts", type=int, default=50, help="splits and merges of the small collection")
    arguments.add_argument("--directory")
    given = arguments.parse_args()
    directory = given.directory or tempfile.mkdtemp(prefix="psdb-resize-")
    os.makedirs(directory, exist_ok=True)
    cluster = Cluster(os.path.abspath(given.program), directory, NODES)
    try:
        cluster.start_all()
        told = measure(cluster, given.gib, given.seconds, given.cuts)
    finally:
        cluster.stop_all()
    for each in told[:3]:
        print("   ", each)
    if not told and not given.directory:
        shutil.rmtree(directory)
    sys.exit(1 if told else 0)


if __name__ == "__main__":
    main()
