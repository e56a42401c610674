"""A client process: appends to lists, reads them and counts, and writes down what it asked, when, and what it was told.

Run as a process of its own by the campaign: `workload.py URI OUTPUT PROCESS SECONDS KEYS_PREFIX`. One line of JSON an operation:
process, kind, key, value, start and end (nanoseconds of the machine's monotonic clock), outcome (ok, unknown), and result or
error and code. `client` does the same with the Rust driver.
"""

import json
import random
import sys
import time

from pymongo import MongoClient, ReturnDocument
from pymongo.errors import PyMongoError

LIST_LENGTH_MAX = 60


def main():
    uri, output, process, seconds, prefix = sys.argv[1:6]
    process, seconds = int(process), float(seconds)
    client = MongoClient(uri, serverSelectionTimeoutMS=60000)
    lists, counters = client.faults.lists, client.faults.counters
    draw = random.Random(process)
    until = time.monotonic() + seconds
    value, generation, appended = 0, 0, 0
    written = set()
    with open(output, "w", buffering=1 << 16) as history:
        while time.monotonic() < until:
            choice = draw.random()
            entry = {"process": process}
            started = time.monotonic_ns()
            try:
                if choice < 0.45:
                    value += 1
                    # Keys are shared by all processes, and move on together, roughly.
                    key = f"{prefix}-{generation}-{draw.randrange(3)}"
                    entry |= {"kind": "append", "key": key, "value": process * 10_000_000 + value}
                    lists.update_one({"_id": key}, {"$push": {"v": entry["value"]}}, upsert=True)
                    appended += 1
                    if appended >= LIST_LENGTH_MAX:
                        appended, generation = 0, generation + 1
                elif choice < 0.85:
                    key = f"{prefix}-{generation}-{draw.randrange(3)}"
                    entry |= {"kind": "read", "key": key}
                    found = lists.find_one({"_id": key})
                    entry["result"] = found["v"] if found else []
                else:
                    key = f"{prefix}-{draw.randrange(5)}"
                    entry |= {"kind": "count", "key": key}
                    found = counters.find_one_and_update(
                        {"_id": key}, {"$inc": {"n": 1}}, upsert=True, return_document=ReturnDocument.AFTER)
                    entry["result"] = found["n"]
                entry["outcome"] = "ok"
            except PyMongoError as error:
                entry |= {"outcome": "unknown", "error": f"{type(error).__name__}: {error}"[:300],
                          "code": getattr(error, "code", None)}
            entry |= {"start": started, "end": time.monotonic_ns()}
            history.write(json.dumps(entry) + "\n")
            if entry["kind"] == "append":
                written.add(entry["key"])
        # Every list is read once more, so that the last appends are seen as well.
        for key in sorted(written):
            entry = {"process": process, "kind": "read", "key": key, "start": time.monotonic_ns()}
            found = lists.find_one({"_id": key})
            entry |= {"outcome": "ok", "result": found["v"] if found else [], "end": time.monotonic_ns()}
            history.write(json.dumps(entry) + "\n")


if __name__ == "__main__":
    main()
