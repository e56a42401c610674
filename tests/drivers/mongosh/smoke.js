// Run by mongosh --file against the node under test; a failed assertion makes mongosh exit with a code other than 0.
const assert = require('assert');
// Values that mongosh makes come from another realm, so that deepStrictEqual never holds for them.
const same = (actual, expected) => assert.strictEqual(JSON.stringify(actual), JSON.stringify(expected));
const name = `mongosh_${new ObjectId().toHexString()}`;
const shop = db.getSiblingDB(name);

if (process.env.PSDB_TEST_SHARDS) {
  sh.shardCollection(`${name}.orders`, { _id: 'hashed' }, { numInitialChunks: Number(process.env.PSDB_TEST_SHARDS) });
}
assert.strictEqual(shop.orders.insertMany([...Array(500).keys()].map((i) => ({ _id: i, customer: i % 10, total: i }))).acknowledged, true);
assert.strictEqual(shop.orders.countDocuments({ customer: 3 }), 50);
assert.strictEqual(shop.orders.createIndex({ customer: 1 }), 'customer_1');
assert.strictEqual(Number(shop.orders.find({ customer: 3 }).explain('executionStats').executionStats.totalDocsExamined), 50);
same(shop.orders.find({ customer: 3 }).sort({ total: -1 }).limit(2).toArray().map((o) => o._id), [493, 483]);
assert.strictEqual(shop.orders.updateMany({ customer: 3 }, { $set: { vip: true } }).modifiedCount, 50);
assert.strictEqual(shop.orders.aggregate([{ $match: { vip: true } }, { $group: { _id: null, sum: { $sum: '$total' } } }]).toArray()[0].sum, 12400);
assert.strictEqual(shop.orders.findOneAndDelete({ _id: 3 }).total, 3);
same(shop.getCollectionNames(), ['orders']);
assert.ok(db.adminCommand({ listDatabases: 1 }).databases.some((d) => d.name === name));
assert.strictEqual(shop.orders.validate().valid, true);
assert.ok(shop.orders.stats().count === 499);
assert.ok(db.serverStatus().uptime >= 0);
let refusal;
try {
  shop.runCommand({ nosuchcommand: 1 });
} catch (error) {
  refusal = error;
}
assert.strictEqual(refusal.codeName, 'CommandNotFound');
assert.strictEqual(shop.dropDatabase().ok, 1);
print('mongosh: all assertions hold');
