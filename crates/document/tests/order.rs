//! The order of values, by scripts. `sort` prints its arguments in BSON order, equal values on one line.

use bson::Bson;
use document::{Value, order};

use crate::support::{self, parse, show};

#[test]
fn values_are_ordered_as_their_scripts_say() {
    support::run_scripts("order", || {
        |name: &str, arguments: &[&str]| match name {
            "sort" => {
                let mut values = arguments.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
                values.sort_by(|a, b| order::compare(&Value::from(a), &Value::from(b)));
                let groups = values.chunk_by(|a, b| order::compare(&Value::from(a), &Value::from(b)).is_eq());
                let line = |group: &[Bson]| group.iter().map(show).collect::<Vec<_>>().join(" = ");
                Ok(groups.map(line).collect::<Vec<_>>().join("\n"))
            }
            _ => Err(format!("unknown command {name}").into()),
        }
    });
}
