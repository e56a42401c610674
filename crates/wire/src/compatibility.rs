//! `docs/COMPATIBILITY.md`, made from the tables that the server itself works by.
//!
//! Called by a test, which fails when the file says something else. Commands, stages, expressions and accumulators come
//! from their tables; filter and update operators are tried on a sample each, so that the page cannot claim what the
//! parser refuses.

use std::fmt::Write;

use bson::{Bson, Document, bson};
use document::filter::Filter;
use document::update::Update;
use document::{DocRef, Value, Variables};

use crate::command::{Spec, TABLE};
use crate::fields::{Field, GENERIC, Support};

const INTRODUCTION: &str = "\
# Compatibility

What PSDB knows of the commands and operators that MongoDB 8.0 has. This page is generated from the tables in the code
(`PSDB_UPDATE_DOCS=1 cargo test -p wire` rewrites it); a test fails when it is out of date.

Whatever is not supported answers the error that MongoDB gives for an unknown command, field, operator or stage, or says
in its own words that it is refused. Nothing is ignored silently but the fields that this page lists as such.

";

/// The whole page, as Markdown.
pub fn markdown() -> String {
    let mut out = INTRODUCTION.to_owned();
    commands(&mut out);
    names(&mut out, "Filter operators", FILTER_OPERATORS.iter().map(|(name, _)| *name), |name| {
        sample(FILTER_OPERATORS, name).is_some_and(|argument| filter_knows(name, argument))
    });
    names(&mut out, "Update operators", UPDATE_OPERATORS.iter().map(|(name, _)| *name), |name| {
        sample(UPDATE_OPERATORS, name).is_some_and(|argument| update_knows(name, argument))
    });
    let stages: Vec<&str> = document::pipeline::stage_names().chain(router::ROUTER_STAGES).collect();
    names(&mut out, "Aggregation stages", merged(STAGES, &stages), |name| stages.contains(&name));
    let accumulators: Vec<&str> = document::pipeline::accumulator::accumulator_names().collect();
    let known = merged(ACCUMULATORS, &accumulators);
    names(&mut out, "Accumulators of `$group`", known, |name| accumulators.contains(&name));
    let expressions: Vec<&str> = document::expression::operator_names().collect();
    let known = merged(EXPRESSIONS, &expressions);
    names(&mut out, "Expressions", known, |name| expressions.contains(&name));
    index_options(&mut out);
    out
}

fn commands(out: &mut String) {
    out.push_str("## Commands\n\n| command | what it does | fields |\n|---|---|---|\n");
    for spec in TABLE {
        let name = command_names(spec);
        line(out, format_args!("| {name} | {} | {} |", spec.summary, field_names(spec.fields)));
    }
    out.push_str(
        "\nFields in *italics* are accepted and change nothing; fields ~~struck through~~ are refused when they ask for\n\
         something (`NotImplemented`, 238). Any other command answers `CommandNotFound` (59), any other field\n\
         `Location40415`.\n\n### Fields of every command\n\n| field | |\n|---|---|\n",
    );
    for field in GENERIC {
        line(out, format_args!("| `{}` | {} |", field.name, support(field)));
    }
    statement_fields(out);
    out.push_str("\n### Fields that are accepted and change nothing\n\n| field | because |\n|---|---|\n");
    for spec in TABLE {
        for field in spec.fields {
            if let Support::Ignored(reason) = field.support {
                line(out, format_args!("| `{}.{}` | {reason} |", spec.name, field.name));
            }
        }
    }
}

fn statement_fields(out: &mut String) {
    out.push_str("\n### Fields of statements\n\n| within | fields |\n|---|---|\n");
    for (owner, fields) in crate::command::STATEMENTS {
        line(out, format_args!("| `{owner}` | {} |", field_names(fields)));
    }
}

fn index_options(out: &mut String) {
    out.push_str(
        "\n## Kinds of indexes\n\nSupported: single field, compound, multikey, ascending and descending, unique. Not \
         supported: text, hashed, geospatial,\nwildcard, clustered, and the options struck through under \
         `createIndexes.indexes`.\n",
    );
}

/// A section with the names that are supported and those that are not.
fn names<'n>(
    out: &mut String,
    title: &str,
    all: impl IntoIterator<Item = &'n str>,
    is_supported: impl Fn(&str) -> bool,
) {
    let (known, unknown): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|name| is_supported(name));
    line(out, format_args!("\n## {title}\n\nSupported: {}.", quoted(&known)));
    if !unknown.is_empty() {
        line(out, format_args!("\nNot supported: {}.", quoted(&unknown)));
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ")
}

/// Both lists, sorted, each name once.
fn merged<'n>(theirs: &'n str, ours: &[&'n str]) -> Vec<&'n str> {
    let mut names: Vec<&str> = theirs.split_whitespace().chain(ours.iter().copied()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a string takes any text");
}

fn command_names(spec: &Spec) -> String {
    let mut names = format!("`{}`", spec.name);
    for alias in spec.aliases {
        write!(names, ", `{alias}`").expect("a string takes any text");
    }
    if spec.test_only {
        names.push_str(" (with `--enable-test-commands`)");
    }
    names
}

fn field_names(fields: &[Field]) -> String {
    let name = |field: &Field| match field.support {
        Support::Full => format!("`{}`", field.name),
        Support::Ignored(_) => format!("*{}*", field.name),
        Support::Refused => format!("~~{}~~", field.name),
    };
    fields.iter().map(name).collect::<Vec<_>>().join(" ")
}

fn support(field: &Field) -> &'static str {
    match field.support {
        Support::Full => "supported",
        Support::Ignored(reason) => reason,
        Support::Refused => "refused",
    }
}

/// Where an operator of a filter or an update stands, and an argument that it takes.
type Sample = (&'static str, fn() -> Bson);

fn sample(samples: &[Sample], name: &str) -> Option<Bson> {
    samples.iter().find(|(known, _)| *known == name).map(|(_, argument)| argument())
}

fn filter_knows(name: &str, argument: Bson) -> bool {
    let single = |name: &str, value: Bson| -> Document { [(name.to_owned(), value)].into_iter().collect() };
    let top = single(name, argument.clone());
    let mut operators = single(name, argument);
    if name == "$options" {
        operators.insert("$regex", "a");
    }
    let nested = single("a", Bson::Document(operators));
    let parses = |filter: &Document| Filter::parse(DocRef::Tree(filter), &Variables::default()).is_ok();
    parses(&top) || parses(&nested)
}

fn update_knows(name: &str, argument: Bson) -> bool {
    let update = match name {
        "$each" | "$position" | "$slice" | "$sort" => {
            let mut push = Document::from_iter([("$each".to_owned(), bson!([1]))]);
            push.insert(name, argument);
            bson!({ "$push": { "a": push } })
        }
        "$" | "$[]" | "$[<identifier>]" => {
            let path = format!("a.{}", name.replace("<identifier>", "x"));
            bson!({ "$set": { path: argument } })
        }
        _ => Bson::Document([(name.to_owned(), bson!({ "a": argument }))].into_iter().collect()),
    };
    let filters = [bson::doc! { "x": 1 }];
    let filters: &[DocRef<'_>] =
        if name == "$[<identifier>]" { &[DocRef::Tree(filters.first().expect("it has one"))] } else { &[] };
    Update::parse(Value::from(&update), filters, &Variables::default()).is_ok()
}

const FILTER_OPERATORS: &[Sample] = &[
    ("$all", || bson!([1])),
    ("$and", || bson!([{ "a": 1 }])),
    ("$bitsAllClear", || bson!(1)),
    ("$bitsAllSet", || bson!(1)),
    ("$bitsAnyClear", || bson!(1)),
    ("$bitsAnySet", || bson!(1)),
    ("$comment", || bson!("why")),
    ("$elemMatch", || bson!({ "$gt": 1 })),
    ("$eq", || bson!(1)),
    ("$exists", || bson!(true)),
    ("$expr", || bson!({ "$eq": ["$a", 1] })),
    ("$geoIntersects", || bson!({ "$geometry": { "type": "Point", "coordinates": [0, 0] } })),
    ("$geoWithin", || bson!({ "$box": [[0, 0], [1, 1]] })),
    ("$gt", || bson!(1)),
    ("$gte", || bson!(1)),
    ("$in", || bson!([1])),
    ("$jsonSchema", || bson!({ "required": ["a"] })),
    ("$lt", || bson!(1)),
    ("$lte", || bson!(1)),
    ("$mod", || bson!([2, 1])),
    ("$ne", || bson!(1)),
    ("$near", || bson!([0, 0])),
    ("$nearSphere", || bson!([0, 0])),
    ("$nin", || bson!([1])),
    ("$nor", || bson!([{ "a": 1 }])),
    ("$not", || bson!({ "$gt": 1 })),
    ("$options", || bson!("i")),
    ("$or", || bson!([{ "a": 1 }])),
    ("$regex", || bson!("a")),
    ("$sampleRate", || bson!(0.5)),
    ("$size", || bson!(1)),
    ("$text", || bson!({ "$search": "a" })),
    ("$type", || bson!("int")),
    ("$where", || bson!("true")),
];

const UPDATE_OPERATORS: &[Sample] = &[
    ("$", || bson!(1)),
    ("$[]", || bson!(1)),
    ("$[<identifier>]", || bson!(1)),
    ("$addToSet", || bson!(1)),
    ("$bit", || bson!({ "or": 1 })),
    ("$currentDate", || bson!(true)),
    ("$each", || bson!([1])),
    ("$inc", || bson!(1)),
    ("$max", || bson!(1)),
    ("$min", || bson!(1)),
    ("$mul", || bson!(1)),
    ("$pop", || bson!(1)),
    ("$position", || bson!(0)),
    ("$pull", || bson!(1)),
    ("$pullAll", || bson!([1])),
    ("$push", || bson!(1)),
    ("$rename", || bson!("b")),
    ("$set", || bson!(1)),
    ("$setOnInsert", || bson!(1)),
    ("$slice", || bson!(1)),
    ("$sort", || bson!(1)),
    ("$unset", || bson!("")),
];

const STAGES: &str = "\
    $addFields $bucket $bucketAuto $changeStream $collStats $count $currentOp $densify $documents $facet \
    $fill $geoNear $graphLookup $group $indexStats $limit $listLocalSessions $listSessions $lookup \
    $match $merge $out $planCacheStats $project $redact $replaceRoot $replaceWith $sample $search $set \
    $setWindowFields $shardedDataDistribution $skip $sort $sortByCount $unionWith $unset $unwind $vectorSearch";

const ACCUMULATORS: &str = "\
    $accumulator $addToSet $avg $bottom $bottomN $count $first $firstN $last $lastN $max $maxN $median \
    $mergeObjects $min $minN $percentile $push $stdDevPop $stdDevSamp $sum $top $topN";

const EXPRESSIONS: &str = "\
    $abs $acos $acosh $add $allElementsTrue $and $anyElementTrue $arrayElemAt $arrayToObject $asin \
    $asinh $atan $atan2 $atanh $avg $binarySize $bitAnd $bitNot $bitOr $bitXor $bsonSize $ceil $cmp \
    $concat $concatArrays $cond $convert $cos $cosh $dateAdd $dateDiff $dateFromParts $dateFromString \
    $dateSubtract $dateToParts $dateToString $dateTrunc $dayOfMonth $dayOfWeek $dayOfYear \
    $degreesToRadians $divide $eq $exp $filter $first $firstN $floor $function $getField $gt $gte $hour \
    $ifNull $in $indexOfArray $indexOfBytes $indexOfCP $isArray $isNumber $isoDayOfWeek $isoWeek \
    $isoWeekYear $last $lastN $let $literal $ln $log $log10 $lt $lte $ltrim $map $max $maxN $median \
    $mergeObjects $meta $millisecond $min $minN $minute $mod $month $multiply $ne $not $objectToArray \
    $or $percentile $pow $radiansToDegrees $rand $range $reduce $regexFind $regexFindAll $regexMatch \
    $replaceAll $replaceOne $reverseArray $round $rtrim $sampleRate $second $setDifference $setEquals \
    $setField $setIntersection $setIsSubset $setUnion $sin $sinh $size $slice $sortArray $split $sqrt \
    $stdDevPop $stdDevSamp $strLenBytes $strLenCP $strcasecmp $substr $substrBytes $substrCP $subtract \
    $sum $switch $tan $tanh $toBool $toDate $toDecimal $toDouble $toHashedIndexKey $toInt $toLong \
    $toLower $toObjectId $toString $toUUID $toUpper $trim $trunc $tsIncrement $tsSecond $type \
    $unsetField $week $year $zip";
