"""What an application does with pymongo and default options. Needs PSDB_URI."""

import datetime
import json
import os
import pathlib
import threading

import bson
import pymongo
import pytest
from bson import Binary, Decimal128, Int64, ObjectId, Regex, Timestamp
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, WriteError

from conftest import shard

CITIES = pathlib.Path(__file__).resolve().parents[3] / "data" / "cities.jsonl"


def test_the_handshake_names_a_router_with_sessions(client):
    hello = client.admin.command("hello")
    assert hello["msg"] == "isdbgrid"
    assert hello["maxWireVersion"] == 25
    assert hello["logicalSessionTimeoutMinutes"] == 30
    assert client.server_info()["version"].startswith("8.0.")


@pytest.mark.parametrize("compressor", ["snappy", "zlib", "zstd"])
def test_every_compressor_carries_large_documents_both_ways(uri, db, compressor):
    with pymongo.MongoClient(uri, compressors=compressor) as client:
        coll = shard(client[db.name]["compressed"])
        text = "all work and no play " * 50_000
        coll.insert_one({"_id": 1, "text": text})
        assert coll.find_one({"_id": 1})["text"] == text


def test_documents_come_back_as_they_went_in(coll):
    document = {
        "_id": ObjectId(), "double": 1.5, "string": "Zürich", "object": {"a": {"b": [1, {"c": None}]}}, "array": [],
        "binary": b"\x00\x01", "uuid": Binary(b"0" * 16, 4), "bool": True,
        "date": datetime.datetime(2024, 2, 29, 12, 30, 15, 123000), "null": None, "regex": Regex("^a", "i"),
        "int": 1, "long": Int64(2**40), "decimal": Decimal128("3.141592653589793238462643383279502"),
        "timestamp": Timestamp(5, 6), "min": bson.MinKey(), "max": bson.MaxKey(),
    }
    assert coll.insert_one(document).acknowledged
    found = coll.find_one({"_id": document["_id"]})
    assert found == document
    assert list(found) == list(document)


def test_crud_reports_what_it_did(coll):
    assert len(coll.insert_many([{"_id": i, "n": i} for i in range(10)]).inserted_ids) == 10
    result = coll.update_many({"n": {"$gte": 5}}, {"$inc": {"n": 100}, "$set": {"big": True}})
    assert (result.matched_count, result.modified_count) == (5, 5)
    result = coll.update_one({"_id": 1}, {"$set": {"n": 1}})
    assert (result.matched_count, result.modified_count) == (1, 0)
    result = coll.update_one({"_id": 50, "kind": "new"}, {"$setOnInsert": {"n": 1}}, upsert=True)
    assert result.upserted_id == 50
    assert coll.find_one({"_id": 50}) == {"_id": 50, "kind": "new", "n": 1}
    assert coll.replace_one({"_id": 2}, {"only": "this"}).modified_count == 1
    assert coll.find_one({"_id": 2}) == {"_id": 2, "only": "this"}
    assert coll.delete_one({"_id": 0}).deleted_count == 1
    assert coll.delete_many({"big": True}).deleted_count == 5
    assert coll.count_documents({}) == 5
    assert coll.estimated_document_count() == 5


def test_find_and_modify_returns_the_document_before_or_after(coll):
    coll.insert_many([{"_id": i, "rank": -i} for i in range(3)])
    before = coll.find_one_and_update({}, {"$set": {"seen": 1}}, sort=[("rank", 1)])
    assert before == {"_id": 2, "rank": -2}
    after = coll.find_one_and_update(
        {"_id": 9}, {"$push": {"l": 1}}, upsert=True, return_document=pymongo.ReturnDocument.AFTER)
    assert after == {"_id": 9, "l": [1]}
    assert coll.find_one_and_delete({"_id": 2}, projection={"seen": 1}) == {"_id": 2, "seen": 1}
    assert coll.find_one_and_replace({"_id": 77}, {"x": 1}) is None


def test_bulk_writes_keep_order_and_report_each_error(coll):
    result = coll.bulk_write([
        InsertOne({"_id": 1}), InsertOne({"_id": 2}), UpdateOne({"_id": 1}, {"$set": {"a": 1}}),
        UpdateMany({}, {"$set": {"b": 1}}), ReplaceOne({"_id": 3}, {"c": 1}, upsert=True), DeleteOne({"_id": 2}),
    ])
    assert result.inserted_count == 2 and result.deleted_count == 1
    assert result.modified_count == 3 and result.upserted_ids == {4: 3}
    requests = [InsertOne({"_id": 10}), InsertOne({"_id": 10}), InsertOne({"_id": 11})]
    with pytest.raises(BulkWriteError) as ordered:
        coll.bulk_write(requests)
    assert ordered.value.details["nInserted"] == 1
    error = ordered.value.details["writeErrors"][0]
    assert (error["index"], error["code"], error["keyValue"]) == (1, 11000, {"_id": 10})
    with pytest.raises(BulkWriteError) as unordered:
        coll.bulk_write(requests, ordered=False)
    assert unordered.value.details["nInserted"] == 1
    assert [error["index"] for error in unordered.value.details["writeErrors"]] == [0, 1]


def test_a_cursor_goes_over_a_hundred_thousand_documents(coll):
    for start in range(0, 100_000, 10_000):
        coll.insert_many([{"_id": i, "x": i % 7} for i in range(start, start + 10_000)])
    assert sum(1 for _ in coll.find(batch_size=777)) == 100_000
    ids = [document["_id"] for document in coll.find({"x": 3}, {"_id": 1}).sort("_id", -1)]
    assert ids == [i for i in range(99_999, -1, -1) if i % 7 == 3]
    cursor = coll.find(batch_size=2)
    next(cursor)
    cursor.close()
    with pytest.raises(OperationFailure) as gone:
        coll.database.command("getMore", Int64(123456789), collection=coll.name)
    assert gone.value.code == 43


def test_queries_reach_into_arrays_and_documents(coll):
    coll.insert_many([
        {"_id": 1, "tags": ["a", "b"], "size": {"h": 10, "w": 5}, "items": [{"k": 1, "v": 5}, {"k": 2, "v": 8}]},
        {"_id": 2, "tags": ["c"], "size": {"h": 20}, "items": [{"k": 1, "v": 9}]},
        {"_id": 3, "tags": [], "size": None},
    ])

    def ids(query):
        return [document["_id"] for document in coll.find(query).sort("_id", 1)]

    assert ids({"tags": "a"}) == [1]
    assert ids({"tags": {"$in": ["b", "c"]}}) == [1, 2]
    assert ids({"tags": {"$size": 0}}) == [3]
    assert ids({"size.h": {"$gt": 10}}) == [2]
    assert ids({"size.w": None}) == [2, 3]
    assert ids({"items": {"$elemMatch": {"k": 1, "v": {"$gt": 6}}}}) == [2]
    assert ids({"items.v": {"$gt": 7, "$lt": 9}}) == [1]
    assert ids({"$or": [{"_id": 3}, {"tags": {"$all": ["a", "b"]}}]}) == [1, 3]
    assert ids({"tags": {"$not": {"$regex": "^[ab]"}}}) == [2, 3]
    assert ids({"$expr": {"$gt": ["$size.h", 15]}}) == [2]
    assert coll.find_one({"items.k": 2}, {"items.$": 1}) == {"_id": 1, "items": [{"k": 2, "v": 8}]}
    assert coll.find_one({"_id": 1}, {"tags": {"$slice": 1}, "_id": 0, "items": 0, "size": 0}) == {"tags": ["a"]}


@pytest.mark.unsharded
def test_indexes_are_used_and_unique_ones_enforced(coll):
    coll.insert_many([{"_id": i, "mail": f"u{i}@example.org", "age": i % 50, "name": f"n{i}"} for i in range(1000)])
    assert coll.create_index("mail", unique=True) == "mail_1"
    assert coll.create_index([("age", 1), ("name", -1)]) == "age_1_name_-1"
    assert set(coll.index_information()) == {"_id_", "mail_1", "age_1_name_-1"}
    with pytest.raises(DuplicateKeyError) as duplicate:
        coll.insert_one({"mail": "u5@example.org"})
    assert duplicate.value.details["keyValue"] == {"mail": "u5@example.org"}
    stats = coll.find({"age": 7}).sort("name", -1).explain()
    assert "IXSCAN" in json.dumps(stats["queryPlanner"], default=str)
    assert "SORT\"" not in json.dumps(stats["queryPlanner"], default=str)
    names = [document["name"] for document in coll.find({"age": 7}).sort("name", -1)]
    assert names == sorted(names, reverse=True) and len(names) == 20
    coll.drop_index("age_1_name_-1")
    assert set(coll.index_information()) == {"_id_", "mail_1"}
    with pytest.raises(OperationFailure):
        coll.find({}).hint("age_1_name_-1").to_list()


def test_an_index_is_built_while_writes_go_on(coll):
    coll.insert_many([{"_id": i, "v": i} for i in range(20_000)])
    stop = threading.Event()
    failures = []

    def write():
        i = 20_000
        while not stop.is_set():
            try:
                coll.insert_one({"_id": i, "v": i})
                coll.update_one({"_id": i - 20_000}, {"$set": {"v": i}})
            except Exception as error:  # noqa: BLE001 - any failure fails the test
                failures.append(error)
                return
            i += 1

    writer = threading.Thread(target=write)
    writer.start()
    coll.create_index("v")
    stop.set()
    writer.join()
    assert not failures
    assert coll.database.command("validate", coll.name)["valid"]
    total = coll.count_documents({})
    assert coll.count_documents({"v": {"$gte": 0}}, hint="v_1") == total


def test_aggregation_over_the_cities(db):
    with CITIES.open(encoding="utf-8") as lines:
        cities = [json.loads(line) for line in lines]
    shard(db.cities).insert_many(cities)
    assert db.cities.count_documents({}) == 34_006
    top = list(db.cities.aggregate([
        {"$match": {"population": {"$gte": 1_000_000}}},
        {"$group": {"_id": "$country", "cities": {"$sum": 1}, "people": {"$sum": "$population"}}},
        {"$sort": {"people": -1}}, {"$limit": 3},
    ]))
    expected = {}
    for city in cities:
        if city["population"] >= 1_000_000:
            entry = expected.setdefault(city["country"], [0, 0])
            entry[0] += 1
            entry[1] += city["population"]
    best = sorted(expected.items(), key=lambda item: -item[1][1])[:3]
    assert [(row["_id"], row["cities"], row["people"]) for row in top] == [(c, n, p) for c, (n, p) in best]
    unwound = next(db.cities.aggregate([
        {"$unwind": "$alternateNames"}, {"$count": "names"}]))
    assert unwound["names"] == sum(len(city["alternateNames"]) for city in cities)
    db.countries.insert_many([{"_id": "CH", "name": "Switzerland"}, {"_id": "AT", "name": "Austria"}])
    joined = list(db.cities.aggregate([
        {"$match": {"_id": {"$in": [2657896, 2761369]}}}, {"$sort": {"name": 1}},
        {"$lookup": {"from": "countries", "localField": "country", "foreignField": "_id", "as": "c"}},
        {"$project": {"_id": 0, "name": {"$toUpper": "$name"}, "land": {"$arrayElemAt": ["$c.name", 0]}}},
    ]))
    # As in MongoDB, $toUpper changes ASCII letters only.
    assert joined == [{"name": "VIENNA", "land": "Austria"}, {"name": "ZüRICH", "land": "Switzerland"}]
    assert sorted(db.cities.distinct("country", {"population": {"$gt": 20_000_000}})) == sorted(
        {city["country"] for city in cities if city["population"] > 20_000_000})


def test_a_retried_write_is_applied_once(client, coll):
    coll.insert_one({"_id": 1, "n": 0})
    with client.start_session() as session:
        command = {
            "update": coll.name, "updates": [{"q": {"_id": 1}, "u": {"$inc": {"n": 1}}}],
            "lsid": session.session_id, "txnNumber": Int64(1),
        }
        first = coll.database.command(dict(command))
        second = coll.database.command(dict(command))
    assert (first["nModified"], second["nModified"]) == (1, 1)
    assert coll.find_one() == {"_id": 1, "n": 1}


def test_the_driver_retries_by_itself_after_a_lost_answer(client, coll):
    coll.insert_one({"_id": 1, "n": 0})
    point = {"configureFailPoint": "failCommand", "mode": {"times": 1},
             "data": {"failCommands": ["update"], "closeConnection": True}}
    client.admin.command(point)
    assert coll.update_one({"_id": 1}, {"$inc": {"n": 1}}).modified_count == 1
    assert coll.find_one() == {"_id": 1, "n": 1}


def test_errors_carry_their_codes(db, coll):
    def code(call):
        with pytest.raises(OperationFailure) as error:
            call()
        return error.value.code

    assert code(lambda: db.command("nosuchcommand")) == 59
    assert code(lambda: db.command("find", "things", unknownField=1)) == 40415
    assert code(lambda: db.command("find", "things", limit="x")) == 14
    assert code(lambda: coll.find_one({"a": {"$nope": 1}})) == 2
    assert code(lambda: list(coll.aggregate([{"$nope": {}}]))) == 40324
    assert code(lambda: list(coll.aggregate([{"$project": {"a": {"$nope": 1}}}]))) in (168, 31325)
    coll.insert_one({"_id": 1, "a": "text"})
    with pytest.raises(WriteError) as failed:
        coll.update_one({"_id": 1}, {"$inc": {"a": 1}})
    assert failed.value.code == 14
    with pytest.raises(WriteError) as failed:
        coll.update_one({"_id": 1}, {"$set": {"_id": 2}})
    assert failed.value.code == 66
    with pytest.raises(pymongo.errors.DocumentTooLarge):
        coll.insert_one({"x": "y" * (17 * 1024 * 1024)})


def test_collections_and_databases_are_listed_until_dropped(client, db):
    db.create_collection("made")
    db["written"].insert_one({})
    assert sorted(db.list_collection_names()) == ["made", "written"]
    assert db.name in client.list_database_names()
    db["written"].drop()
    assert db.list_collection_names() == ["made"]
    client.drop_database(db.name)
    assert db.list_collection_names() == []


def test_max_time_stops_a_long_scan(coll):
    coll.insert_many([{"_id": i, "pad": "x" * 500} for i in range(50_000)])
    with pytest.raises(OperationFailure) as expired:
        list(coll.find({"$expr": {"$eq": [{"$strLenCP": "$pad"}, 1]}}).max_time_ms(1))
    assert expired.value.code == 50
