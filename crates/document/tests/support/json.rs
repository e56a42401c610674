//! Values in the syntax of the MongoDB shell: `{a: 1, b: [NumberLong(2), ISODate("2020-01-01T00:00:00Z")], c: /x/i}`.
//!
//! Numbers without a point are `int` when they fit and `long` otherwise; with a point or an exponent they are `double`.
//! What is printed reads back as the same value.

use std::fmt::Write as _;

use bson::{Bson, Document};

type Result<T> = std::result::Result<T, String>;

/// Reads one value and nothing after it.
pub(crate) fn parse(text: &str) -> Result<Bson> {
    let mut reader = Reader { rest: text };
    let value = reader.value()?;
    reader.skip_space();
    if reader.rest.is_empty() { Ok(value) } else { Err(format!("trailing text: {}", reader.rest)) }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: char) -> bool {
        self.skip_space();
        let eaten = self.rest.strip_prefix(token);
        self.rest = eaten.unwrap_or(self.rest);
        eaten.is_some()
    }

    fn expect(&mut self, token: char) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(format!("expected {token} at: {}", self.rest)) }
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !accept(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn value(&mut self) -> Result<Bson> {
        self.skip_space();
        match self.rest.chars().next().ok_or("a value is missing")? {
            '{' => self.document().map(Bson::Document),
            '[' => self.list('[', ']').map(Bson::Array),
            quote @ ('"' | '\'') => self.string(quote).map(Bson::String),
            '/' => self.regex(),
            '-' | '+' | '.' | '0'..='9' => self.number(),
            _ => self.word(),
        }
    }

    fn document(&mut self) -> Result<Document> {
        self.expect('{')?;
        let mut document = Document::new();
        while !self.eat('}') {
            self.skip_space();
            let name = match self.rest.chars().next() {
                Some(quote @ ('"' | '\'')) => self.string(quote)?,
                _ => self.take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '.')).to_owned(),
            };
            self.expect(':')?;
            let value = self.value()?;
            document.insert(name, value);
            if !self.eat(',') {
                self.expect('}')?;
                break;
            }
        }
        Ok(document)
    }

    fn list(&mut self, open: char, close: char) -> Result<Vec<Bson>> {
        self.expect(open)?;
        let mut values = Vec::new();
        while !self.eat(close) {
            values.push(self.value()?);
            if !self.eat(',') {
                self.expect(close)?;
                break;
            }
        }
        Ok(values)
    }

    fn string(&mut self, quote: char) -> Result<String> {
        self.expect(quote)?;
        let mut text = String::new();
        let mut chars = self.rest.chars();
        loop {
            match chars.next().ok_or("a string is not closed")? {
                c if c == quote => break,
                '\\' => text.push(match chars.next().ok_or("a string is not closed")? {
                    'n' => '\n',
                    't' => '\t',
                    '0' => '\0',
                    'u' => {
                        let digits: String = chars.by_ref().take(4).collect();
                        let code = u32::from_str_radix(&digits, 16).map_err(|error| error.to_string())?;
                        char::from_u32(code).ok_or("not a character")?
                    }
                    other => other,
                }),
                c => text.push(c),
            }
        }
        self.rest = chars.as_str();
        Ok(text)
    }

    fn regex(&mut self) -> Result<Bson> {
        let mut pattern = String::new();
        let mut chars = self.rest.chars();
        chars.next();
        loop {
            match chars.next().ok_or("a regular expression is not closed")? {
                '/' => break,
                '\\' => match chars.next().ok_or("a regular expression is not closed")? {
                    '/' => pattern.push('/'),
                    other => pattern.extend(['\\', other]),
                },
                c => pattern.push(c),
            }
        }
        self.rest = chars.as_str();
        let options = self.take_while(|c| c.is_ascii_alphabetic());
        Ok(Bson::RegularExpression(bson::Regex { pattern: c_string(&pattern)?, options: c_string(options)? }))
    }

    fn number(&mut self) -> Result<Bson> {
        let text = self.take_while(|c| c.is_alphanumeric() || matches!(c, '-' | '+' | '.'));
        match text {
            "-Infinity" => Ok(Bson::Double(f64::NEG_INFINITY)),
            _ if text.contains(['.', 'e', 'E']) => parsed::<f64>(text).map(Bson::Double),
            _ => parsed::<i64>(text).map(|int| i32::try_from(int).map_or(Bson::Int64(int), Bson::Int32)),
        }
    }

    fn word(&mut self) -> Result<Bson> {
        let word = self.take_while(|c| c.is_alphanumeric() || c == '_');
        match word {
            "true" => return Ok(Bson::Boolean(true)),
            "false" => return Ok(Bson::Boolean(false)),
            "null" => return Ok(Bson::Null),
            "undefined" => return Ok(Bson::Undefined),
            "NaN" => return Ok(Bson::Double(f64::NAN)),
            "Infinity" => return Ok(Bson::Double(f64::INFINITY)),
            "MinKey" => return Ok(Bson::MinKey),
            "MaxKey" => return Ok(Bson::MaxKey),
            "" => return Err(format!("not a value: {}", self.rest)),
            _ => {}
        }
        let arguments = self.list('(', ')')?;
        call(word, &arguments)
    }
}

fn call(name: &str, arguments: &[Bson]) -> Result<Bson> {
    let text = |index: usize| match arguments.get(index) {
        Some(Bson::String(text)) => Ok(text.clone()),
        Some(Bson::Int32(int)) => Ok(int.to_string()),
        Some(Bson::Int64(int)) => Ok(int.to_string()),
        Some(Bson::Double(double)) => Ok(double.to_string()),
        other => Err(format!("{name} of {other:?}")),
    };
    Ok(match name {
        "NumberInt" => Bson::Int32(parsed(&text(0)?)?),
        "NumberLong" => Bson::Int64(parsed(&text(0)?)?),
        "NumberDecimal" => Bson::Decimal128(text(0)?.parse().map_err(|error| format!("{error}"))?),
        "Double" => Bson::Double(parsed(&text(0)?)?),
        "ObjectId" => Bson::ObjectId(text(0)?.parse().map_err(|error| format!("{error}"))?),
        "ISODate" => {
            let time = bson::DateTime::parse_rfc3339_str(text(0)?).map_err(|error| error.to_string())?;
            Bson::DateTime(time)
        }
        "Date" => Bson::DateTime(bson::DateTime::from_millis(parsed(&text(0)?)?)),
        "Timestamp" => {
            Bson::Timestamp(bson::Timestamp { time: parsed(&text(0)?)?, increment: parsed(&text(1)?)? })
        }
        "BinData" => {
            let subtype: u8 = parsed(&text(0)?)?;
            Bson::Binary(bson::Binary { subtype: subtype.into(), bytes: bytes_of_hex(&text(1)?)? })
        }
        "Symbol" => Bson::Symbol(text(0)?),
        "Code" => match arguments.get(1) {
            Some(Bson::Document(scope)) => Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope {
                code: text(0)?,
                scope: scope.clone(),
            }),
            _ => Bson::JavaScriptCode(text(0)?),
        },
        "RegExp" => {
            let options = if arguments.len() > 1 { text(1)? } else { String::new() };
            Bson::RegularExpression(bson::Regex {
                pattern: c_string(&text(0)?)?,
                options: c_string(&options)?,
            })
        }
        _ => return Err(format!("unknown constructor {name}")),
    })
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

fn c_string(text: &str) -> Result<bson::raw::CString> {
    bson::raw::CString::try_from(text).map_err(|error| error.to_string())
}

fn bytes_of_hex(text: &str) -> Result<Vec<u8>> {
    let digit = |c: char| c.to_digit(16).ok_or_else(|| format!("not hexadecimal: {text}"));
    let digits = text.chars().map(digit).collect::<Result<Vec<_>>>()?;
    Ok(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8)).collect())
}

/// Prints a value so that [`parse`] reads it back.
pub(crate) fn show(value: &Bson) -> String {
    match value {
        Bson::Document(document) => {
            let field = |(name, value): (&String, &Bson)| format!("{}: {}", show_name(name), show(value));
            format!("{{{}}}", document.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        Bson::Array(array) => format!("[{}]", array.iter().map(show).collect::<Vec<_>>().join(", ")),
        Bson::String(text) => show_string(text),
        Bson::Double(double) if double.is_finite() => format!("{double:?}"),
        Bson::Double(double) if double.is_nan() => "NaN".into(),
        Bson::Double(double) if *double > 0.0 => "Infinity".into(),
        Bson::Double(_) => "-Infinity".into(),
        Bson::Int32(int) => int.to_string(),
        Bson::Int64(int) => format!("NumberLong({int})"),
        Bson::Decimal128(decimal) => format!("NumberDecimal(\"{decimal}\")"),
        Bson::Boolean(flag) => flag.to_string(),
        Bson::Null => "null".into(),
        Bson::Undefined => "undefined".into(),
        Bson::MinKey => "MinKey".into(),
        Bson::MaxKey => "MaxKey".into(),
        Bson::ObjectId(id) => format!("ObjectId(\"{id}\")"),
        Bson::DateTime(time) => match time.try_to_rfc3339_string() {
            Ok(text) if bson::DateTime::parse_rfc3339_str(&text).is_ok_and(|parsed| parsed == *time) => {
                format!("ISODate(\"{text}\")")
            }
            _ => format!("Date({})", time.timestamp_millis()),
        },
        Bson::Timestamp(time) => format!("Timestamp({}, {})", time.time, time.increment),
        Bson::Binary(binary) => {
            let subtype: u8 = binary.subtype.into();
            let hex = binary.bytes.iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").expect("a string takes all text");
                hex
            });
            format!("BinData({subtype}, \"{hex}\")")
        }
        Bson::RegularExpression(regex) => {
            format!("/{}/{}", regex.pattern.as_str().replace('/', "\\/"), regex.options.as_str())
        }
        Bson::Symbol(text) => format!("Symbol({})", show_string(text)),
        Bson::JavaScriptCode(code) => format!("Code({})", show_string(code)),
        Bson::JavaScriptCodeWithScope(code) => {
            format!("Code({}, {})", show_string(&code.code), show(&Bson::Document(code.scope.clone())))
        }
        Bson::DbPointer(pointer) => format!("{pointer:?}"),
    }
}

fn show_name(name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '.'));
    if plain { name.to_owned() } else { show_string(name) }
}

fn show_string(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\0', "\\0");
    format!("\"{}\"", escaped.replace('\t', "\\t"))
}
