"""What a cluster says of the shards of a collection, and whether the documents in them are what they should be.

Used by the campaign and by its work. Always holds: nothing here changes anything but `shard_collection` and `cut_evenly`.
"""

import random
import time

from cluster import primaries, replicas, status

SETTLE_PATIENCE_S = 60
# As many as the campaign wants; half as many or twice as many are left alone by the balancer.
SHARDS = 4
# So much has to be copied when all shards are cut anew.
FILL_DOCUMENTS = 40_000
FILL_BYTES = 500
BATCH = 2_000
# By this the balancer neither merges halves of a shard that is filled, nor splits two that became one.
SPLIT_BYTES = 12 << 20
# How many keys are looked up one by one.
LOOKUPS = 1_000


def shard_collection(client, namespace):
    """Cuts the collection into shards, and fills them, so that a fault can come while something is copied."""
    client.admin.command({"psdbBalancer": 1, "splitBytes": SPLIT_BYTES})
    database, _, name = namespace.partition(".")
    for first in range(0, FILL_DOCUMENTS, BATCH):
        documents = [{"_id": f"fill-{key}", "text": random.randbytes(FILL_BYTES // 2).hex()} for key in range(first, first + BATCH)]
        client[database][name].insert_many(documents, ordered=False)
    client.admin.command({"shardCollection": namespace, "key": {"_id": "hashed"}, "numInitialChunks": SHARDS})


def cut_evenly(client, namespace):
    """Brings the collection back to as many shards as it had at first, of the same size."""
    if len(chunks(client, namespace)) != SHARDS:
        client.admin.command({"reshardCollection": namespace, "key": {"_id": "hashed"}, "numInitialChunks": SHARDS})


def chunks(client, namespace):
    """The collection's shards as config.chunks shows them, in the order of their hashes."""
    uuid = client.config.collections.find_one({"_id": namespace})["uuid"]
    return list(client.config.chunks.find({"uuid": uuid}))


def is_resharding(client, namespace):
    return any(reshard["collection"] == namespace for reshard in status(client)["reshards"])


def catalog_leader(answer):
    """The number of the node that leads the catalog, as far as the nodes know now."""
    found = [(replica["term"], int(node["name"][1:])) for node, replica in replicas(answer)
             if replica["shard"] == answer["shards"][0]["shard"] and replica["role"] == "primary"]
    return max(found)[1] if found else None


def held_by(answer, name, namespace):
    """How many replicas of the collection's shards the node of this name says that it has."""
    return sum(node["name"] == name and replica.get("collection") == namespace for node, replica in replicas(answer))


def placed_on(answer, name):
    """How many replicas of shards of any collection the catalog has placed on the node of this name."""
    number = {node["name"]: node["node"] for node in answer["nodes"]}.get(name)
    return sum(replica["node"] == number for shard in answer["shards"] if shard["collection"] is not None
               for replica in shard["replicas"])


def left_over(answer):
    """Replicas that nodes still have although the catalog has not placed them: of shards that were cut, or that moved."""
    placed = {replica["replica"] for shard in answer["shards"] for replica in shard["replicas"]}
    return [(node["name"], replica["shard"], replica["replica"]) for node, replica in replicas(answer)
            if replica["replica"] not in placed]


def wrongs(client, namespace):
    """What is wrong with the collection, in sentences, while nobody writes."""
    said = gaps(chunks(client, namespace))
    database, _, name = namespace.partition(".")
    collection = client[database][name]
    keys = [document["_id"] for document in collection.find({}, {"_id": 1})]
    counted = collection.count_documents({})
    if not len(keys) == len(set(keys)) == counted:
        said.append(f"{counted} documents are counted and {len(keys)} found, of which {len(set(keys))} are different")
    drawn = random.sample(keys, min(LOOKUPS, len(keys)))
    if missing := [key for key in drawn if collection.find_one({"_id": key}, {"_id": 1}) is None][:5]:
        said.append(f"documents are not in the shard that owns them: {missing}")
    report = client[database].command("validate", name)
    if not report["valid"]:
        said.append(f"validate says {report}")
    return said + await_tidy(client, namespace, counted)


def gaps(shards):
    ends = [next(iter(shard["max"].values())) for shard in shards[:-1]]
    begins = [next(iter(shard["min"].values())) for shard in shards[1:]]
    return [] if ends == begins else [f"the shards do not follow each other: they end at {ends} and begin at {begins}"]


def await_tidy(client, namespace, counted):
    """Empty once the shards' primaries hold as many documents as were counted and no replica is left over, else why not."""
    deadline = time.monotonic() + SETTLE_PATIENCE_S
    while True:
        answer = status(client)
        held = {shard: documents for shard, documents in documents_of(answer, namespace)}
        said = []
        if sum(held.values()) != counted:
            said.append(f"{counted} documents are counted, and the shards hold {held}")
        if found := left_over(answer):
            said.append(f"replicas are left over (node, shard, replica): {found}")
        if not said or time.monotonic() > deadline:
            return said
        time.sleep(0.2)


def documents_of(answer, namespace):
    leading = primaries(answer, namespace)
    for node, replica in replicas(answer):
        if leading.get(replica["shard"]) == (replica["term"], int(node["name"][1:])) and replica["role"] == "primary":
            yield replica["shard"], replica["documents"]
