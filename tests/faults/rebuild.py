"""How long a cluster takes to replace a replica whose data is gone, and what clients feel of it.

    rebuild.py --program target/release/psdb [--gib 1] [--seconds 10] [--directory D]

Three nodes on loopback, without namespaces; documents of 1 KB in one collection; clients that insert, update and read, by the
routers of two nodes. The third, a secondary, is killed, its data directory is removed, and it is started again, so that it joins
under a new id. Prints the seconds from that start until every shard has three complete voters again without the old node, and the
clients' operations per second meanwhile as a part of those before. Exits with 1 when an operation failed.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time

from cluster import Cluster, await_complete, connect, is_complete, primary_of, replicas, status

NODES = 3
DOCUMENT_BYTES = 1024
BATCH = 1000
LOADERS = 2
# What each of the clients' processes does.
CLIENTS = ("insert", "update", "update", "read", "read")
WARM_UP_S = 2
# A gibibyte may take its time where two cores do all of it.
PATIENCE_S = 1800


def document(key):
    # Random, so that nothing is won by compression.
    return {"_id": key, "n": 0, "text": random.randbytes((DOCUMENT_BYTES - 32) // 2).hex()}


def load(uri, keys):
    documents = connect(uri).faults.documents
    for start in range(0, len(keys), BATCH):
        documents.insert_many([document(key) for key in keys[start:start + BATCH]], ordered=False)


def work(uri, process, count, done, failures, ends):
    """One client: does its operation again and again until it is told to end, and counts how often."""
    documents, draw = connect(uri).faults.documents, random.Random(process)
    operation = {
        "insert": lambda: documents.insert_one(document(f"{process}-{done[process]}")),
        "update": lambda: documents.update_one({"_id": draw.randrange(count)}, {"$inc": {"n": 1}}),
        "read": lambda: documents.find_one({"_id": draw.randrange(count)}),
    }[CLIENTS[process]]
    while not ends.is_set():
        try:
            operation()
        except Exception as error:  # Whatever it is, a client saw it.
            failures.put(f"{CLIENTS[process]}: {error!r}")
        done[process] += 1


class Clients:
    """Clients of these routers that work until they are told to end; `done` counts what each of them did."""

    def __init__(self, uri, count):
        self.done, self.failures, self.ends = processes.Array("Q", len(CLIENTS)), processes.Queue(), processes.Event()
        each = [(uri, number, count, self.done, self.failures, self.ends) for number in range(len(CLIENTS))]
        self.processes = in_processes(work, each)
        time.sleep(WARM_UP_S)

    def end(self):
        """What they were told in the place of answers."""
        self.ends.set()
        told = []
        while any(process.is_alive() for process in self.processes) or not self.failures.empty():
            if not self.failures.empty():
                told.append(self.failures.get())
            time.sleep(0.01)
        return told


def in_processes(target, arguments):
    # Not forked: a client of the driver does not outlive that. They end with this process, however it ends.
    started = [processes.Process(target=target, args=each, daemon=True) for each in arguments]
    for process in started:
        process.start()
    return started


def fill(uri, count):
    started = in_processes(load, [(uri, range(loader, count, LOADERS)) for loader in range(LOADERS)])
    for process in started:
        process.join()
        if process.exitcode != 0:
            raise RuntimeError("documents could not be loaded")


def rate(done, wait):
    """The clients' operations per second while something is waited for, and for how many seconds it was."""
    before, began = sum(done), time.monotonic()
    wait()
    seconds = time.monotonic() - began
    return (sum(done) - before) / seconds, seconds


def node_id(client, name):
    return next(node["node"] for node in status(client)["nodes"] if node["name"] == name)


def has_replaced(answer, gone):
    members = [member["node"] for _, replica in replicas(answer) for member in replica.get("members", [])]
    return gone not in members and all(is_complete(answer, shard["shard"], NODES) for shard in answer["shards"])


def await_replaced(client, gone):
    deadline = time.monotonic() + PATIENCE_S
    while not has_replaced(answer := status(client), gone):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the lost replicas were not replaced: {answer}")
        time.sleep(0.1)


def measure(cluster, gib, seconds):
    """The line to print, and what clients were told in the place of answers."""
    client = connect(cluster.uri())
    client.faults.documents.insert_one({"_id": "first"})
    await_complete(client, NODES)
    count = int(gib * (1 << 30) / DOCUMENT_BYTES)
    _, load_s = rate([0], lambda: fill(cluster.uri(), count))
    await_complete(client, NODES, PATIENCE_S)
    victim = next(number for number in range(1, NODES + 1) if number != primary_of(client, "faults.documents"))
    routers = cluster.uri([number for number in range(1, NODES + 1) if number != victim])
    client = connect(routers)
    gone = node_id(client, f"n{victim}")

    clients = Clients(routers, count)
    done = clients.done
    before, _ = rate(done, lambda: time.sleep(seconds))
    cluster.kill(victim)
    cluster.wipe(victim)
    cluster.start(victim)
    meanwhile, rebuild_s = rate(done, lambda: await_replaced(client, gone))
    told = clients.end()
    return (f"{gib} GiB in {count} documents, loaded in {load_s:.1f} s: replicas complete again after {rebuild_s:.1f} s; "
            f"clients {meanwhile:.0f} operations/s meanwhile, {meanwhile / before * 100:.0f} % of {before:.0f} before; "
            f"{len(told)} of {sum(done)} failed"), told


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--program", default="target/release/psdb")
    arguments.add_argument("--gib", type=float, default=1)
    arguments.add_argument("--seconds", type=float, default=10, help="how long clients work before the fault")
    arguments.add_argument("--directory")
    given = arguments.parse_args()
    directory = given.directory or tempfile.mkdtemp(prefix="psdb-rebuild-")
    os.makedirs(directory, exist_ok=True)
    cluster = Cluster(os.path.abspath(given.program), directory, NODES)
    try:
        cluster.start_all()
        line, told = measure(cluster, given.gib, given.seconds)
    finally:
        cluster.stop_all()
    print(line)
    for each in told[:3]:
        print("   ", each)
    # Several gibibytes are of no use to anybody when all went well; else the logs are.
    if not told and not given.directory:
        shutil.rmtree(directory)
    sys.exit(1 if told else 0)


processes = multiprocessing.get_context("spawn")

if __name__ == "__main__":
    main()
