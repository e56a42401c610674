//! Values written for people: shell literals, on one line where they fit and indented where they do not.
//!
//! Called by the shell and the demo. What is written reads back through [`super::parse`] as the same value, except
//! for the deprecated DBPointer, which has no literal. Colours come in as a [`Palette`], so that pipes stay clean.

use std::fmt::Write as _;

use bson::spec::BinarySubtype;
use bson::{Bson, Document, Regex, Timestamp};
use nu_ansi_term::{Color, Style};

use super::{date, json, parse};

/// The colours of a document's parts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Palette {
    name: Style,
    text: Style,
    number: Style,
    other: Style,
}

impl Palette {
    /// No escape sequences at all: for pipes, files and tests.
    pub fn plain() -> Palette {
        Palette::default()
    }

    /// Colours that read well on dark and on light terminals.
    pub fn coloured() -> Palette {
        Palette {
            name: Style::default(),
            text: Color::Green.normal(),
            number: Color::Yellow.normal(),
            other: Color::Cyan.normal(),
        }
    }
}

/// Writes `value`, breaking documents and arrays that do not fit into `width` columns.
pub fn pretty(value: &Bson, width: usize, palette: Palette) -> String {
    let mut out = String::new();
    Printer { width, palette, out: &mut out }.value(value, 0, 0);
    out
}

/// Writes `value` on one line without colours.
pub fn line(value: &Bson) -> String {
    pretty(value, usize::MAX, Palette::plain())
}

/// Writes `document` on one line without colours.
pub fn document_line(document: &Document) -> String {
    line(&Bson::Document(document.clone()))
}

struct Printer<'o> {
    width: usize,
    palette: Palette,
    out: &'o mut String,
}

impl Printer<'_> {
    /// Writes `value` at `indent`, with `used` columns of the line already taken.
    fn value(&mut self, value: &Bson, indent: usize, used: usize) {
        match value {
            Bson::Document(document) => self.document(document, indent, used),
            Bson::Array(values) => self.array(values, indent, used),
            scalar => {
                let style = match scalar {
                    Bson::String(_) => self.palette.text,
                    Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => {
                        self.palette.number
                    }
                    _ => self.palette.other,
                };
                self.styled(style, &scalar_text(scalar));
            }
        }
    }

    fn document(&mut self, document: &Document, indent: usize, used: usize) {
        if document.is_empty() {
            self.out.push_str("{}");
            return;
        }
        let broken = !self.fits(&Bson::Document(document.clone()), indent.max(used));
        self.out.push('{');
        for (index, (name, value)) in document.iter().enumerate() {
            self.gap(index, broken, indent, " ");
            let name = field_name(name);
            self.styled(self.palette.name, &name);
            self.out.push_str(": ");
            self.value(value, indent + 2, indent + 4 + name.chars().count());
        }
        self.close('}', broken, indent, " ");
    }

    fn array(&mut self, values: &[Bson], indent: usize, used: usize) {
        if values.is_empty() {
            self.out.push_str("[]");
            return;
        }
        let broken = !self.fits(&Bson::Array(values.to_vec()), indent.max(used));
        self.out.push('[');
        for (index, value) in values.iter().enumerate() {
            self.gap(index, broken, indent, "");
            self.value(value, indent + 2, indent + 2);
        }
        self.close(']', broken, indent, "");
    }

    /// What stands before the element number `index`.
    fn gap(&mut self, index: usize, broken: bool, indent: usize, padding: &str) {
        if index > 0 {
            self.out.push(',');
        }
        if broken {
            let _ = write!(self.out, "\n{:1$}", "", indent + 2);
        } else {
            self.out.push_str(if index > 0 { " " } else { padding });
        }
    }

    fn close(&mut self, bracket: char, broken: bool, indent: usize, padding: &str) {
        if broken {
            let _ = write!(self.out, "\n{:indent$}", "");
        } else {
            self.out.push_str(padding);
        }
        self.out.push(bracket);
    }

    /// Whether `value` fits on the rest of a line of which `used` columns are taken.
    fn fits(&self, value: &Bson, used: usize) -> bool {
        let mut left = self.width.saturating_sub(used);
        self.width == usize::MAX || consume(value, &mut left)
    }

    fn styled(&mut self, style: Style, text: &str) {
        if style == Style::default() {
            self.out.push_str(text);
        } else {
            let _ = write!(self.out, "{}", style.paint(text));
        }
    }
}

/// Takes the columns of `value` from `left`; false as soon as they do not suffice.
fn consume(value: &Bson, left: &mut usize) -> bool {
    let mut take = |columns: usize| {
        let enough = columns <= *left;
        *left = left.saturating_sub(columns);
        enough
    };
    match value {
        Bson::Document(document) => {
            take(4)
                && document.iter().all(|(name, value)| {
                    let columns = field_name(name).chars().count() + 4;
                    let enough = columns <= *left;
                    *left = left.saturating_sub(columns);
                    enough && consume(value, left)
                })
        }
        Bson::Array(values) => {
            take(2)
                && values.iter().all(|value| {
                    let enough = 2 <= *left;
                    *left = left.saturating_sub(2);
                    enough && consume(value, left)
                })
        }
        scalar => take(scalar_text(scalar).chars().count()),
    }
}

/// A field name, in quotes only where it needs them.
fn field_name(name: &str) -> String {
    let plain = name.starts_with(parse::is_name_start)
        && name.chars().all(|c| parse::is_name_start(c) || c.is_numeric());
    if plain { name.to_owned() } else { quoted(name) }
}

fn quoted(text: &str) -> String {
    let mut out = String::new();
    json::write_string(text, &mut out);
    out
}

/// A value that is neither a document nor an array, as a literal.
pub fn scalar_text(value: &Bson) -> String {
    match value {
        Bson::String(text) => quoted(text),
        Bson::Double(number) => json::double_text(*number),
        Bson::Int32(number) => number.to_string(),
        Bson::Int64(number) if i32::try_from(*number).is_ok() => format!("NumberLong({number})"),
        Bson::Int64(number) => number.to_string(),
        Bson::Decimal128(number) => format!("NumberDecimal(\"{number}\")"),
        Bson::Boolean(truth) => truth.to_string(),
        Bson::Null => "null".to_owned(),
        Bson::Undefined => "undefined".to_owned(),
        Bson::MinKey => "MinKey()".to_owned(),
        Bson::MaxKey => "MaxKey()".to_owned(),
        Bson::ObjectId(id) => format!("ObjectId(\"{}\")", id.to_hex()),
        Bson::DateTime(when) => match date::write(*when) {
            Some(text) => format!("ISODate(\"{text}\")"),
            None => format!("Date({})", when.timestamp_millis()),
        },
        Bson::Timestamp(Timestamp { time, increment }) => format!("Timestamp({time}, {increment})"),
        Bson::Binary(binary) => match uuid_text(binary) {
            Some(uuid) => format!("UUID(\"{uuid}\")"),
            None => {
                format!("BinData({}, \"{}\")", u8::from(binary.subtype), json::base64(&binary.bytes))
            }
        },
        Bson::RegularExpression(regex) => regex_text(regex),
        Bson::JavaScriptCode(code) => format!("Code({})", quoted(code)),
        Bson::JavaScriptCodeWithScope(code) => {
            format!("Code({}, {})", quoted(&code.code), document_line(&code.scope))
        }
        Bson::Symbol(symbol) => format!("Symbol({})", quoted(symbol)),
        other => other.to_string(),
    }
}

/// The text of a UUID, if `binary` is one.
pub(super) fn uuid_text(binary: &bson::Binary) -> Option<String> {
    match (binary.subtype, binary.bytes.len()) {
        (BinarySubtype::Uuid, 16) => binary.to_uuid().ok().map(|uuid| uuid.to_string()),
        _ => None,
    }
}

/// `/pattern/options` where that reads back as the same expression, else the constructor.
fn regex_text(regex: &Regex) -> String {
    let value = Bson::RegularExpression(regex.clone());
    let slashes = format!("/{}/{}", regex.pattern.as_str().replace('/', "\\/"), regex.options.as_str());
    if parse::parse(&slashes).as_ref() == Ok(&value) {
        return slashes;
    }
    match regex.options.as_str() {
        "" => format!("RegExp({})", quoted(regex.pattern.as_str())),
        options => format!("RegExp({}, {})", quoted(regex.pattern.as_str()), quoted(options)),
    }
}
