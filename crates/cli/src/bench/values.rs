//! Keys and documents of the benchmark: YCSB's layout of ten text fields.
//!
//! Values are slices of one block of random letters made at the start, so that a client spends next to nothing on
//! making them.

use bson::{RawDocumentBuf, cstr, rawdoc};
use rand::Rng;

use super::distribution::fnv;

/// Fields of a document.
pub(super) const FIELDS: usize = 10;
/// Random letters that values are cut from, beyond the length of one value.
const BLOCK_BYTES: usize = 1 << 20;

/// A block of random text.
pub(super) struct Values {
    block: String,
    field_bytes: usize,
}

impl Values {
    /// Text for documents with `value_bytes` in their fields.
    pub(super) fn new(value_bytes: usize, random: &mut impl Rng) -> Values {
        let field_bytes = value_bytes / FIELDS;
        let letters = (0..BLOCK_BYTES + field_bytes).map(|_| char::from(random.random_range(b'a'..=b'z')));
        Values { block: letters.collect(), field_bytes }
    }

    /// A field's value.
    pub(super) fn field(&self, random: &mut impl Rng) -> &str {
        let start = random.random_range(0..BLOCK_BYTES);
        self.block.get(start..start + self.field_bytes).expect("the block is ASCII and longer than any value")
    }

    /// The document number `number`.
    pub(super) fn document(&self, number: u64, random: &mut impl Rng) -> RawDocumentBuf {
        let mut document = rawdoc! { "_id": key(number) };
        let names = [
            cstr!("field0"),
            cstr!("field1"),
            cstr!("field2"),
            cstr!("field3"),
            cstr!("field4"),
            cstr!("field5"),
            cstr!("field6"),
            cstr!("field7"),
            cstr!("field8"),
            cstr!("field9"),
        ];
        for name in names {
            document.append(name, self.field(random));
        }
        document
    }
}

/// The `_id` of document `number`: hashed, so that keys are not inserted in order.
pub(super) fn key(number: u64) -> String {
    format!("user{:020}", fnv(number))
}
