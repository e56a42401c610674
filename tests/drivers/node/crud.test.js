// What an application does with the Node.js driver and default options. Needs PSDB_URI.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Decimal128, Long, MongoClient, ObjectId } from 'mongodb';
import { shard } from './shards.js';

const client = new MongoClient(process.env.PSDB_URI);
const db = client.db(`node_${new ObjectId().toHexString()}`);

before(async () => {
  await client.connect();
  for (const name of ['things', 'bulk', 'many', 'orders', 'counters']) {
    await shard(client, db.databaseName, name);
  }
});
after(async () => {
  await db.dropDatabase();
  await client.close();
});

test('documents come back as they went in', async () => {
  const things = db.collection('things');
  const document = {
    _id: new ObjectId(), text: 'Zürich', long: Long.fromString('9007199254740993'), when: new Date(1e12),
    price: Decimal128.fromString('1.50'), nested: { list: [1, { a: null }] }, pattern: /^a/i, bytes: Buffer.from([1, 2]),
  };
  await things.insertOne(document);
  const found = await things.findOne({ _id: document._id }, { promoteLongs: false, promoteBuffers: true });
  assert.equal(found.long.toString(), '9007199254740993');
  assert.deepEqual(found.when, document.when);
  assert.equal(found.price.toString(), '1.50');
  assert.deepEqual(found.bytes, document.bytes);
});

test('bulk writes and their counts', async () => {
  const bulk = db.collection('bulk');
  const result = await bulk.bulkWrite([
    { insertOne: { document: { _id: 1, n: 1 } } },
    { insertOne: { document: { _id: 2, n: 2 } } },
    { updateOne: { filter: { _id: 1 }, update: { $inc: { n: 10 } } } },
    { updateMany: { filter: {}, update: { $set: { seen: true } } } },
    { replaceOne: { filter: { _id: 3 }, replacement: { n: 3 }, upsert: true } },
    { deleteOne: { filter: { _id: 2 } } },
  ]);
  assert.equal(result.insertedCount, 2);
  assert.equal(result.modifiedCount, 3);
  assert.equal(result.upsertedCount, 1);
  assert.equal(result.deletedCount, 1);
  assert.deepEqual(await bulk.find().sort({ _id: 1 }).toArray(), [{ _id: 1, n: 11, seen: true }, { _id: 3, n: 3 }]);
});

test('a cursor goes over a hundred thousand documents', async () => {
  const many = db.collection('many');
  for (let start = 0; start < 100_000; start += 20_000) {
    await many.insertMany(Array.from({ length: 20_000 }, (_, i) => ({ _id: start + i, mod: (start + i) % 10 })));
  }
  let count = 0;
  for await (const document of many.find().sort({ _id: 1 }).batchSize(5_000)) {
    assert.equal(document._id, count);
    count += 1;
  }
  assert.equal(count, 100_000);
  assert.equal(await many.countDocuments({ mod: 3 }), 10_000);
});

test('indexes, explain and aggregation', async () => {
  const orders = db.collection('orders');
  await orders.insertMany(Array.from({ length: 1_000 }, (_, i) => ({ customer: i % 20, total: i, tags: ['x', `t${i % 3}`] })));
  assert.equal(await orders.createIndex({ customer: 1, total: -1 }), 'customer_1_total_-1');
  assert.equal(await orders.createIndex({ tags: 1 }), 'tags_1');
  const plan = await orders.find({ customer: 7 }).sort({ total: -1 }).explain('executionStats');
  assert.equal(plan.executionStats.nReturned, 50);
  assert.equal(plan.executionStats.totalDocsExamined, 50);
  const groups = await orders.aggregate([
    { $match: { tags: 't1' } },
    { $group: { _id: '$customer', total: { $sum: '$total' }, average: { $avg: '$total' } } },
    { $sort: { _id: 1 } },
  ]).toArray();
  assert.equal(groups.length, 20);
  const expected = Array.from({ length: 1_000 }, (_, i) => (i % 3 === 1 ? i : 0)).reduce((a, b) => a + b);
  assert.equal(groups.reduce((sum, group) => sum + group.total, 0), expected);
});

test('a retried write is applied once', async () => {
  const counters = db.collection('counters');
  await counters.insertOne({ _id: 'c', n: 0 });
  await client.db('admin').command({
    configureFailPoint: 'failCommand', mode: { times: 1 }, data: { failCommands: ['update'], closeConnection: true },
  });
  await counters.updateOne({ _id: 'c' }, { $inc: { n: 1 } });
  assert.equal((await counters.findOne({ _id: 'c' })).n, 1);
});
