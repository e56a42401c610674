//! The sorted table of operators, and the forms their arguments take.
//!
//! Called by the parser. An operator is one row here and one function in its family's file.

use std::fmt;

use base::Result;

use super::parse::Parser;
use super::{
    Call, Expression, Outcome, accumulate, arithmetic, array, boolean, comparison, conditional, conversion,
    date, date_arithmetic, date_format, date_parts, exponential, object, regex, set, string, string_search,
    transform, trim, variable,
};
use crate::value::Value;

/// An operator: how its arguments are read and what it does with them.
pub(crate) struct Operator {
    /// With its `$`.
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    pub(crate) apply: for<'a> fn(&Call<'a>) -> Outcome<'a>,
}

/// How an operator's arguments are written.
pub(crate) enum Form {
    /// `{$op: [a, b]}`, from `min` to `max` of them; a single one may stand without brackets.
    Positional { min: usize, max: usize },
    /// `{$op: {name: a, other: b}}`: arguments in the order of this list.
    Named(&'static [Field]),
    /// Its own way.
    Custom(fn(&Value<'_>, &mut Parser<'_>) -> Result<Vec<Option<Expression>>>),
}

/// A named argument.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
}

/// A named argument that must be there.
pub(crate) const fn required(name: &'static str) -> Field {
    Field { name, required: true }
}

/// A named argument that may be left out.
pub(crate) const fn optional(name: &'static str) -> Field {
    Field { name, required: false }
}

/// No bound on the number of arguments.
pub(crate) const MANY: usize = usize::MAX;

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Operator {
    fn eq(&self, other: &Operator) -> bool {
        self.name == other.name
    }
}

/// The operator called `name`.
pub(crate) fn find(name: &str) -> Option<&'static Operator> {
    let index = OPERATORS.binary_search_by(|operator| operator.name.cmp(name)).ok()?;
    OPERATORS.get(index)
}

/// The names of all operators, sorted.
pub fn operator_names() -> impl Iterator<Item = &'static str> {
    OPERATORS.iter().map(|operator| operator.name)
}

type Apply = for<'a> fn(&Call<'a>) -> Outcome<'a>;

const fn positional(name: &'static str, min: usize, max: usize, apply: Apply) -> Operator {
    Operator { name, form: Form::Positional { min, max }, apply }
}

const fn named(name: &'static str, fields: &'static [Field], apply: Apply) -> Operator {
    Operator { name, form: Form::Named(fields), apply }
}

const fn custom(
    name: &'static str,
    parse: fn(&Value<'_>, &mut Parser<'_>) -> Result<Vec<Option<Expression>>>,
    apply: Apply,
) -> Operator {
    Operator { name, form: Form::Custom(parse), apply }
}

static OPERATORS: &[Operator] = &[
    positional("$abs", 1, 1, arithmetic::abs),
    positional("$add", 0, MANY, arithmetic::add),
    positional("$allElementsTrue", 1, 1, set::all_elements_true),
    positional("$and", 0, MANY, boolean::and),
    positional("$anyElementTrue", 1, 1, set::any_element_true),
    positional("$arrayElemAt", 2, 2, array::element_at),
    positional("$arrayToObject", 1, 1, object::from_array),
    positional("$avg", 0, MANY, accumulate::avg),
    positional("$binarySize", 1, 1, string::binary_size),
    positional("$bsonSize", 1, 1, object::bson_size),
    positional("$ceil", 1, 1, arithmetic::ceil),
    positional("$cmp", 2, 2, comparison::cmp),
    positional("$concat", 0, MANY, string::concat),
    positional("$concatArrays", 0, MANY, array::concat),
    custom("$cond", conditional::parse_cond, conditional::cond),
    custom("$const", variable::parse_literal, variable::literal),
    named("$convert", conversion::CONVERT_FIELDS, conversion::convert),
    named("$dateAdd", date_arithmetic::ADD_FIELDS, date_arithmetic::add),
    named("$dateDiff", date_arithmetic::DIFF_FIELDS, date_arithmetic::diff),
    named("$dateFromParts", date_parts::FROM_FIELDS, date_parts::from_parts),
    named("$dateFromString", date_format::FROM_STRING_FIELDS, date_format::from_string),
    named("$dateSubtract", date_arithmetic::ADD_FIELDS, date_arithmetic::subtract),
    named("$dateToParts", date_parts::TO_FIELDS, date_parts::to_parts),
    named("$dateToString", date_format::TO_STRING_FIELDS, date_format::to_string),
    named("$dateTrunc", date_arithmetic::TRUNC_FIELDS, date_arithmetic::trunc),
    custom("$dayOfMonth", date::parse_part, date::day_of_month),
    custom("$dayOfWeek", date::parse_part, date::day_of_week),
    custom("$dayOfYear", date::parse_part, date::day_of_year),
    positional("$divide", 2, 2, arithmetic::divide),
    positional("$eq", 2, 2, comparison::eq),
    positional("$exp", 1, 1, exponential::exp),
    custom("$filter", transform::parse_filter, transform::filter),
    positional("$first", 1, 1, array::first),
    positional("$floor", 1, 1, arithmetic::floor),
    custom("$getField", object::parse_get_field, object::get_field),
    positional("$gt", 2, 2, comparison::gt),
    positional("$gte", 2, 2, comparison::gte),
    custom("$hour", date::parse_part, date::hour),
    positional("$ifNull", 2, MANY, conditional::if_null),
    positional("$in", 2, 2, array::contains),
    positional("$indexOfArray", 2, 4, array::index_of),
    positional("$indexOfBytes", 2, 4, string_search::index_of_bytes),
    positional("$indexOfCP", 2, 4, string_search::index_of_code_points),
    positional("$isArray", 1, 1, array::is_array),
    positional("$isNumber", 1, 1, conversion::is_number),
    custom("$isoDayOfWeek", date::parse_part, date::iso_day_of_week),
    custom("$isoWeek", date::parse_part, date::iso_week),
    custom("$isoWeekYear", date::parse_part, date::iso_week_year),
    positional("$last", 1, 1, array::last),
    custom("$let", variable::parse_let, variable::apply_let),
    custom("$literal", variable::parse_literal, variable::literal),
    positional("$ln", 1, 1, exponential::ln),
    positional("$log", 2, 2, exponential::log),
    positional("$log10", 1, 1, exponential::log10),
    positional("$lt", 2, 2, comparison::lt),
    positional("$lte", 2, 2, comparison::lte),
    named("$ltrim", trim::FIELDS, trim::ltrim),
    custom("$map", transform::parse_map, transform::map),
    positional("$max", 0, MANY, accumulate::max),
    positional("$mergeObjects", 0, MANY, object::merge),
    custom("$millisecond", date::parse_part, date::millisecond),
    positional("$min", 0, MANY, accumulate::min),
    custom("$minute", date::parse_part, date::minute),
    positional("$mod", 2, 2, arithmetic::modulo),
    custom("$month", date::parse_part, date::month),
    positional("$multiply", 0, MANY, arithmetic::multiply),
    positional("$ne", 2, 2, comparison::ne),
    positional("$not", 1, 1, boolean::not),
    positional("$objectToArray", 1, 1, object::to_array),
    positional("$or", 0, MANY, boolean::or),
    positional("$pow", 2, 2, exponential::pow),
    positional("$range", 2, 3, array::range),
    custom("$reduce", transform::parse_reduce, transform::reduce),
    custom("$regexFind", regex::parse, regex::find),
    custom("$regexFindAll", regex::parse, regex::find_all),
    custom("$regexMatch", regex::parse, regex::matches),
    named("$replaceAll", string_search::REPLACE_FIELDS, string_search::replace_all),
    named("$replaceOne", string_search::REPLACE_FIELDS, string_search::replace_one),
    positional("$reverseArray", 1, 1, array::reverse),
    positional("$round", 1, 2, arithmetic::round),
    named("$rtrim", trim::FIELDS, trim::rtrim),
    custom("$second", date::parse_part, date::second),
    positional("$setDifference", 2, 2, set::difference),
    positional("$setEquals", 2, MANY, set::equals),
    named("$setField", object::SET_FIELD_FIELDS, object::set_field),
    positional("$setIntersection", 0, MANY, set::intersection),
    positional("$setIsSubset", 2, 2, set::is_subset),
    positional("$setUnion", 0, MANY, set::union),
    positional("$size", 1, 1, array::size),
    positional("$slice", 2, 3, array::slice),
    custom("$sortArray", transform::parse_sort, transform::sort),
    positional("$split", 2, 2, string::split),
    positional("$sqrt", 1, 1, exponential::sqrt),
    positional("$strLenBytes", 1, 1, string::len_bytes),
    positional("$strLenCP", 1, 1, string::len_code_points),
    positional("$strcasecmp", 2, 2, string::compare_ignoring_case),
    positional("$substr", 3, 3, string::substring_bytes),
    positional("$substrBytes", 3, 3, string::substring_bytes),
    positional("$substrCP", 3, 3, string::substring_code_points),
    positional("$subtract", 2, 2, arithmetic::subtract),
    positional("$sum", 0, MANY, accumulate::sum),
    custom("$switch", conditional::parse_switch, conditional::switch),
    positional("$toBool", 1, 1, conversion::to_bool),
    positional("$toDate", 1, 1, conversion::to_date),
    positional("$toDecimal", 1, 1, conversion::to_decimal),
    positional("$toDouble", 1, 1, conversion::to_double),
    positional("$toInt", 1, 1, conversion::to_int),
    positional("$toLong", 1, 1, conversion::to_long),
    positional("$toLower", 1, 1, string::to_lower),
    positional("$toObjectId", 1, 1, conversion::to_object_id),
    positional("$toString", 1, 1, conversion::to_text),
    positional("$toUpper", 1, 1, string::to_upper),
    named("$trim", trim::FIELDS, trim::trim),
    positional("$trunc", 1, 2, arithmetic::trunc),
    positional("$type", 1, 1, conversion::type_name),
    custom("$unsetField", object::parse_unset_field, object::set_field),
    custom("$week", date::parse_part, date::week),
    custom("$year", date::parse_part, date::year),
    named("$zip", transform::ZIP_FIELDS, transform::zip),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_a_search_finds_every_operator() {
        assert!(OPERATORS.is_sorted_by(|a, b| a.name < b.name));
    }
}
