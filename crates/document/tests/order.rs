//! The order of values, their encoded keys and sorting, by scripts. `sort` prints its arguments in BSON order, equal
//! values on one line; `key` and `descending` print encodings; `by` sorts the declared documents
//! and prints their `_id`s.

use std::error::Error;
use std::fmt::Write as _;

use bson::{Bson, Document};
use document::sort::SortSpec;
use document::{DocBuf, DocRef, Value, key, order};
use proptest::prelude::*;

use crate::support::{self, any, parse, show};

#[test]
fn values_are_ordered_as_their_scripts_say() {
    support::run_scripts("order", || {
        let mut documents: Vec<Document> = Vec::new();
        move |name: &str, arguments: &[&str]| match (name, arguments) {
            ("sort", texts) => sorted(texts),
            ("key", [text]) => Ok(hex(&encoded(&parse(text)?))),
            ("descending", [text]) => {
                let mut out = Vec::new();
                key::encode_descending(&Value::from(&parse(text)?), &mut out);
                Ok(hex(&out))
            }
            ("hash", [text]) => Ok(format!("{:016x}", key::hash(&encoded(&parse(text)?)))),
            ("documents", texts) => {
                documents = texts.iter().map(|text| support::tree(text)).collect();
                Ok(String::new())
            }
            ("by", [spec]) => {
                let spec = SortSpec::parse(support::document(spec).as_doc())?;
                let mut sorted = documents.clone();
                sorted.sort_by_cached_key(|document| spec.key(DocRef::Tree(document)));
                let id = |document: &Document| document.get("_id").map_or_else(String::new, show);
                Ok(sorted.iter().map(id).collect::<Vec<_>>().join(" "))
            }
            _ => Err(format!("unknown command {name}").into()),
        }
    });
}

fn sorted(texts: &[&str]) -> Result<String, Box<dyn Error>> {
    let mut values = texts.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    values.sort_by(|a, b| order::compare(&Value::from(a), &Value::from(b)));
    let groups = values.chunk_by(|a, b| order::compare(&Value::from(a), &Value::from(b)).is_eq());
    let line = |group: &[Bson]| group.iter().map(show).collect::<Vec<_>>().join(" = ");
    Ok(groups.map(line).collect::<Vec<_>>().join("\n"))
}

fn encoded(value: &Bson) -> Vec<u8> {
    let mut out = Vec::new();
    key::encode(&Value::from(value), &mut out);
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes all text");
        hex
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn encoded_keys_compare_as_their_values_do(a in any::value(), b in any::value()) {
        let expected = order::compare(&Value::from(&a), &Value::from(&b));
        prop_assert_eq!(encoded(&a).cmp(&encoded(&b)), expected);
        let (mut a_descending, mut b_descending) = (Vec::new(), Vec::new());
        key::encode_descending(&Value::from(&a), &mut a_descending);
        key::encode_descending(&Value::from(&b), &mut b_descending);
        prop_assert_eq!(a_descending.cmp(&b_descending), expected.reverse());
    }

    #[test]
    fn encoded_numbers_compare_as_the_numbers_do(a in any::number(), b in any::number()) {
        prop_assert_eq!(encoded(&a).cmp(&encoded(&b)), order::compare(&Value::from(&a), &Value::from(&b)));
    }

    #[test]
    fn no_encoded_key_is_a_proper_prefix_of_another(a in any::value(), b in any::value()) {
        let (a, b) = (encoded(&a), encoded(&b));
        prop_assert!(a == b || !b.starts_with(&a));
    }

    #[test]
    fn an_encoded_key_tells_where_it_ends(value in any::value(), rest in prop::collection::vec(any_byte(), 0..4)) {
        for descending in [false, true] {
            let mut bytes = Vec::new();
            match descending {
                false => key::encode(&Value::from(&value), &mut bytes),
                true => key::encode_descending(&Value::from(&value), &mut bytes),
            }
            let length = bytes.len();
            for cut in 0..length {
                prop_assert_eq!(key::encoded_len(&bytes[..cut], descending), None);
            }
            bytes.extend(&rest);
            prop_assert_eq!(key::encoded_len(&bytes, descending), Some(length));
        }
    }

    #[test]
    fn the_order_is_transitive(a in any::number(), b in any::number(), c in any::number()) {
        let mut values = [&a, &b, &c].map(Value::from);
        values.sort_by(order::compare);
        prop_assert!(order::compare(&values[0], &values[2]).is_le());
        prop_assert!(order::compare(&values[0], &values[1]).is_le());
    }

    #[test]
    fn raw_documents_and_trees_compare_and_encode_alike(a in any::document(), b in any::document()) {
        let (raw_a, raw_b) = (DocBuf::encode(&a)?, DocBuf::encode(&b)?);
        let expected = order::compare_documents(DocRef::Tree(&a), DocRef::Tree(&b));
        prop_assert_eq!(order::compare_documents(raw_a.as_doc(), raw_b.as_doc()), expected);
        let mut raw_key = Vec::new();
        key::encode(&Value::Document(raw_a.as_doc()), &mut raw_key);
        prop_assert_eq!(raw_key, encoded(&Bson::Document(a)));
    }
}

fn any_byte() -> impl Strategy<Value = u8> {
    proptest::num::u8::ANY
}
