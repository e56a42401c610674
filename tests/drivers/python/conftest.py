"""Shared fixtures: a client for the node under test and a fresh collection, perhaps of many shards, for each test."""

import os
import uuid

import pymongo
import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "unsharded: has a unique index without the shard key, so that it is not sharded")


@pytest.fixture(scope="session")
def uri():
    return os.environ["PSDB_URI"]


@pytest.fixture(scope="session")
def client(uri):
    with pymongo.MongoClient(uri) as client:
        yield client


@pytest.fixture
def db(client):
    name = f"py_{uuid.uuid4().hex[:12]}"
    yield client[name]
    client.drop_database(name)


def shard(collection):
    """Cuts a new collection into as many shards as PSDB_TEST_SHARDS says, by its _id."""
    shards = int(os.environ.get("PSDB_TEST_SHARDS", "0"))
    if shards:
        namespace = f"{collection.database.name}.{collection.name}"
        collection.database.client.admin.command(
            "shardCollection", namespace, key={"_id": "hashed"}, numInitialChunks=shards)
    return collection


@pytest.fixture
def coll(db, request):
    if request.node.get_closest_marker("unsharded"):
        if "PSDB_TEST_SHARDS" in os.environ:
            print(f"{request.node.name}: not sharded, for a unique index of it lacks the shard key")
        return db["things"]
    return shard(db["things"])
