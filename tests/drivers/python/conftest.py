"""Shared fixtures: a client for the node under test and a fresh collection for each test."""

import os
import uuid

import pymongo
import pytest


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


@pytest.fixture
def coll(db):
    return db["things"]
