//! The tables of `docs/COMPATIBILITY.md`, made from the tables that the server itself works by.
//!
//! Called by a test, which fails when the file says something else.

use std::fmt::Write;

use crate::command::{Spec, TABLE};
use crate::fields::{Field, GENERIC, Support};

/// Every command with its fields, as Markdown.
pub fn commands_markdown() -> String {
    let mut out = String::new();
    out.push_str("## Commands\n\n| command | what it does | fields |\n|---|---|---|\n");
    for spec in TABLE {
        let name = names(spec);
        line(&mut out, format_args!("| {name} | {} | {} |", spec.summary, field_names(spec.fields)));
    }
    out.push_str(
        "\nAny other command answers `CommandNotFound` (59); any other field answers `Location40415`. Fields in \
         *italics* are accepted and change nothing; fields ~~struck through~~ are refused when they ask for \
         something (`NotImplemented`, 238).\n\n## Fields of every command\n\n| field | |\n|---|---|\n",
    );
    for field in GENERIC {
        line(&mut out, format_args!("| `{}` | {} |", field.name, support(field)));
    }
    out.push_str("\n## Fields that are accepted and change nothing\n\n| field | because |\n|---|---|\n");
    for spec in TABLE {
        for field in spec.fields {
            if let Support::Ignored(reason) = field.support {
                line(&mut out, format_args!("| `{}.{}` | {reason} |", spec.name, field.name));
            }
        }
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a string takes any text");
}

fn names(spec: &Spec) -> String {
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
