// Run by mongosh --file against the node under test: the helpers by which people shard collections, and what they print.
const assert = require('assert');
// Values that mongosh makes come from another realm, so that deepStrictEqual never holds for them.
const same = (actual, expected) => assert.strictEqual(JSON.stringify(actual), JSON.stringify(expected));
const refusal = (ask) => {
  try {
    ask();
  } catch (error) {
    return error;
  }
  return assert.fail('this should have been refused');
};
const name = `mongosh_${new ObjectId().toHexString()}`;
const shop = db.getSiblingDB(name);
const ns = `${name}.orders`;
const config = db.getSiblingDB('config');
const chunks = () => config.chunks.find({ uuid: config.collections.findOne({ _id: ns }).uuid }).sort({ min: 1 }).toArray();

shop.orders.insertMany([...Array(300).keys()].map((i) => ({ _id: i, customer: i % 10 })));
assert.strictEqual(sh.enableSharding(name).ok, 1);
assert.strictEqual(sh.shardCollection(ns, { customer: 'hashed' }, false, { numInitialChunks: 4 }).collectionsharded, ns);
assert.strictEqual(refusal(() => sh.shardCollection(ns, { _id: 1 })).codeName, 'AlreadyInitialized');
assert.strictEqual(shop.orders.countDocuments({ customer: 3 }), 30);

const cut = chunks();
assert.strictEqual(cut.length, 4);
assert.ok(cut[0].min.customer instanceof MinKey && cut[3].max.customer instanceof MaxKey);
same(cut.slice(1).map((chunk) => chunk.min), cut.slice(0, 3).map((chunk) => chunk.max));

assert.strictEqual(sh.splitFind(ns, { customer: 3 }).ok, 1);
assert.strictEqual(sh.splitAt(ns, { customer: 4 }).ok, 1);
assert.strictEqual(chunks().length, 6);
assert.strictEqual(refusal(() => sh.splitFind(ns, { total: 3 })).codeName, 'ShardKeyNotFound');
const [first, second] = chunks();
assert.strictEqual(db.adminCommand({ mergeChunks: ns, bounds: [first.min, second.max] }).ok, 1);
assert.strictEqual(chunks().length, 5);

const nodes = db.adminCommand({ listShards: 1 }).shards.map((node) => node._id);
for (const node of nodes) {
  assert.strictEqual(sh.moveChunk(ns, { customer: 3 }, node).ok, 1);
}
assert.strictEqual(refusal(() => sh.moveChunk(ns, { customer: 3 }, 'nowhere')).codeName, 'NodeNotFound');

sh.stopBalancer();
assert.strictEqual(sh.getBalancerState(), false);
assert.strictEqual(sh.isBalancerRunning().mode, 'off');
sh.startBalancer();
assert.strictEqual(sh.getBalancerState(), true);
assert.strictEqual(sh.isBalancerRunning().mode, 'full');
assert.strictEqual(sh.balancerCollectionStatus(ns).ok, 1);
assert.match(refusal(() => sh.disableBalancing(ns)).message, /balancerStop/);

const status = sh.status().value;
same(status.shards.map((node) => node._id), nodes);
const mine = status.databases.find((entry) => entry.database._id === name).collections[ns];
same(mine.shardKey, { customer: 'hashed' });
assert.strictEqual(mine.chunks.length, 5);
assert.strictEqual(mine.chunkMetadata.reduce((sum, part) => sum + Number(part.nChunks), 0), 5);
assert.strictEqual(status.balancer['Currently enabled'], 'yes');
const spread = status.shardedDataDistribution.find((entry) => entry.ns === ns);
assert.strictEqual(spread.shards.reduce((sum, part) => sum + Number(part.numOwnedDocuments), 0), 300);

const distribution = shop.orders.getShardDistribution().value;
assert.strictEqual(distribution.Totals.docs, 300);
assert.strictEqual(distribution.Totals.chunks, 5);
assert.strictEqual(shop.orders.stats().sharded, true);
assert.strictEqual(shop.orders.stats().count, 300);
assert.strictEqual(shop.orders.getShardVersion().ok, 1);
same(config.getCollectionNames().includes('chunks'), true);
assert.strictEqual(refusal(() => config.chunks.insertOne({ a: 1 })).codeName, 'CommandNotSupported');

assert.strictEqual(sh.reshardCollection(ns, { _id: 'hashed' }, { numInitialChunks: 3 }).ok, 1);
assert.strictEqual(chunks().length, 3);
assert.strictEqual(shop.orders.countDocuments({}), 300);
assert.strictEqual(shop.dropDatabase().ok, 1);
print('mongosh: all assertions on sharding hold');
