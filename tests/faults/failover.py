"""How long clients wait when the node of a primary goes away, over many runs of each fault.

    failover.py --program target/release/psdb [--runs 200] [--faults kill,pause,partition,handover]

Each run: one client for each router, and one that knows all routers, update documents of their own one after the other; the fault
comes over the node of the primary, it goes, the replicas become complete again. A run's pause is the longest operation of the
clients whose router is another than the faulted node; that of the client that knows all routers is shown beside it, since it
contains what the driver needs to find another router. Exits with 1 when an operation failed.
"""

import argparse
import sys
import tempfile
import threading
import time

import faults
from cluster import await_complete, connect, primary_of
from faults import at

NODES = 3
# The faults, and the seconds that each lasts: longer than an election.
FAULTS = {faults.kill: 1.6, faults.pause: 2.5, faults.partition: 2.5, faults.handover: 0.5}


class Writer(threading.Thread):
    """Updates one document again and again, and notes when each operation began and ended."""

    def __init__(self, uri, name):
        super().__init__(daemon=True)
        self.name, self.client = name, connect(uri)
        self.ends, self.operations, self.failures = False, [], []

    def run(self):
        lists = self.client.faults.lists
        while not self.ends:
            start = time.monotonic()
            try:
                lists.update_one({"_id": self.name}, {"$inc": {"n": 1}}, upsert=True)
            except Exception as error:  # Whatever it is, a client saw it.
                self.failures.append(repr(error))
            self.operations.append((start, time.monotonic()))
            time.sleep(0.002)

    def longest_ms(self, since):
        return max((end - start for start, end in self.operations if end > since), default=0) * 1000

    def has_gone_on(self, since):
        """Whether an operation that began since then has ended."""
        return any(start > since for start, _ in self.operations[-50:])


def run(cluster, client, fault, totals):
    node = primary_of(client, "faults.lists")
    others = [other.number for other in cluster.nodes if other.number != node]
    writers = [Writer(cluster.uri([router]), f"router-{router}") for router in others]
    everywhere = Writer(cluster.uri(), "all routers")
    for writer in [*writers, everywhere]:
        writer.start()
    time.sleep(0.5)
    began = time.monotonic()
    for wait in fault(cluster, node, others, FAULTS[fault]):
        time.sleep(wait)
    for writer in [*writers, everywhere]:
        after = time.monotonic()
        while not writer.has_gone_on(after):
            time.sleep(0.01)
        writer.ends = True
    for writer in [*writers, everywhere]:
        writer.join()
        totals["failures"] += writer.failures
        totals["operations"] += len(writer.operations)
        writer.client.close()
    totals["by others"].append(max(writer.longest_ms(began) for writer in writers))
    totals["by all"].append(everywhere.longest_ms(began))
    await_complete(client, len(cluster.nodes))
    # A node that came back gives its vote only after a while, as a real operator's next step would come later, too.
    time.sleep(0.8)


def report(fault, totals):
    print(f"{fault.__name__}: {len(totals['by all'])} runs, {totals['operations']} operations, "
          f"{len(totals['failures'])} failed {totals['failures'][:3] or ''}")
    for whose in ("by others", "by all"):
        pauses = sorted(totals[whose])
        print(f"  longest pause {whose:9}: p50 {at(pauses, 50):7.1f}  p90 {at(pauses, 90):7.1f}  "
              f"p99 {at(pauses, 99):7.1f}  longest {pauses[-1]:7.1f} ms", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--program", default="target/release/psdb")
    arguments.add_argument("--runs", type=int, default=200)
    arguments.add_argument("--faults", default=",".join(fault.__name__ for fault in FAULTS))
    given = arguments.parse_args()
    chosen = faults.named(arguments, given.faults, FAULTS)
    directory = tempfile.mkdtemp(prefix="psdb-failover-")
    failed = 0
    with faults.running_cluster(given.program, directory, NODES, chosen) as (cluster, possible):
        client = connect(cluster.uri())
        client.faults.lists.update_one({"_id": "warm"}, {"$inc": {"n": 1}}, upsert=True)
        await_complete(client, NODES)
        for fault in possible:
            totals = {"failures": [], "operations": 0, "by others": [], "by all": []}
            for _ in range(given.runs):
                run(cluster, client, fault, totals)
            report(fault, totals)
            failed += len(totals["failures"])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
