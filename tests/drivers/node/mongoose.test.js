// What an application does with mongoose and default options. Needs PSDB_URI.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import mongoose from 'mongoose';
import { shard, skip } from './shards.js';

const connection = mongoose.createConnection(process.env.PSDB_URI, { dbName: `mongoose_${Date.now()}` });

const Author = connection.model('Author', new mongoose.Schema({
  name: { type: String, required: true },
  mail: { type: String, unique: true },
}));
const Book = connection.model('Book', new mongoose.Schema({
  title: { type: String, index: true },
  author: { type: mongoose.Schema.Types.ObjectId, ref: 'Author' },
  chapters: [{ name: String, pages: Number }],
  ratings: { type: Map, of: Number },
}, { timestamps: true }));

before(async () => {
  await connection.asPromise();
  await Promise.all([Author.init(), Book.init()]);
  skip(Author.collection.name);
  await shard(connection.getClient(), connection.name, Book.collection.name);
});
after(async () => {
  await connection.dropDatabase();
  await connection.close();
});

test('models save, populate, update and validate', async () => {
  const ada = await Author.create({ name: 'Ada', mail: 'ada@example.org' });
  const book = await Book.create({
    title: 'Notes', author: ada, chapters: [{ name: 'A', pages: 3 }, { name: 'B', pages: 9 }], ratings: { first: 5 },
  });
  const found = await Book.findById(book._id).populate('author');
  assert.equal(found.author.name, 'Ada');
  found.chapters[1].pages = 10;
  found.chapters.push({ name: 'C', pages: 1 });
  found.ratings.set('second', 4);
  await found.save();
  const again = await Book.findOne({ 'chapters.pages': { $gt: 9 } }).lean();
  assert.equal(again.chapters.length, 3);
  assert.equal(again.ratings.second, 4);
  assert.ok(again.updatedAt >= again.createdAt);
  await assert.rejects(Author.create({ name: 'Imposter', mail: 'ada@example.org' }), { code: 11000 });
});

test('queries, counters and aggregates through models', async () => {
  await Book.insertMany(Array.from({ length: 50 }, (_, i) => ({ title: `T${i}`, chapters: [{ name: 'x', pages: i }] })));
  const page = await Book.find({ title: /^T/ }).sort('-title').skip(5).limit(5).select('title -_id').lean();
  assert.equal(page.length, 5);
  assert.deepEqual(Object.keys(page[0]), ['title']);
  const updated = await Book.findOneAndUpdate({ title: 'T1' }, { $inc: { 'chapters.0.pages': 100 } }, { returnDocument: 'after' });
  assert.equal(updated.chapters[0].pages, 101);
  const [sum] = await Book.aggregate([
    { $match: { title: { $regex: '^T' } } }, { $unwind: '$chapters' },
    { $group: { _id: null, pages: { $sum: '$chapters.pages' } } },
  ]);
  assert.equal(sum.pages, (49 * 50) / 2 + 100);
  assert.equal((await Book.deleteMany({ title: /^T/ })).deletedCount, 50);
});
