// Cuts a new collection into as many shards as PSDB_TEST_SHARDS says, by its _id. Used by the tests beside it.
const shards = Number(process.env.PSDB_TEST_SHARDS ?? 0);

// `client` is that of the driver, `collection` one of the driver or of mongoose.
export async function shard(client, database, collection) {
  if (shards > 0) {
    const shardCollection = `${database}.${collection}`;
    await client.db('admin').command({ shardCollection, key: { _id: 'hashed' }, numInitialChunks: shards });
  }
}

export function skip(collection) {
  if (shards > 0) {
    console.log(`${collection}: not sharded, for a unique index of it lacks the shard key`);
  }
}
