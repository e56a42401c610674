//! The tokens of a literal that need more than a character: strings, numbers and regular expressions.
//!
//! Called by the parser only, each with the token's first character as the next one.

use bson::raw::CString;
use bson::{Bson, Regex};

use super::parse::{ParseError, Parser};

impl Parser<'_> {
    /// Reads a quoted string, with the escapes of JavaScript.
    pub fn string(&mut self) -> Result<String, ParseError> {
        let start = self.position();
        let rest = self.rest();
        let mut chars = rest.char_indices();
        let quote = chars.next().map_or('"', |(_, quote)| quote);
        let mut out = String::new();
        while let Some((index, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.advance(index + c.len_utf8());
                    return Ok(out);
                }
                '\\' => {
                    let mut following = chars.as_str().chars();
                    let escaped = escape(&mut following).map_err(|m| ParseError::new(start + index, m))?;
                    out.extend(escaped);
                    let used = chars.as_str().len() - following.as_str().len();
                    let resume = index + 1 + used;
                    chars = rest.char_indices();
                    skip_to(&mut chars, resume);
                }
                '\n' => break,
                c => out.push(c),
            }
        }
        Err(ParseError::new(start, "the string is not closed"))
    }

    /// Reads a number: an `Int32` or `Int64` if it is written as an integer that fits, else a double.
    pub(super) fn number(&mut self) -> Result<Bson, ParseError> {
        let rest = self.rest();
        let unsigned = rest.trim_start_matches(['-', '+']);
        let negative = rest.starts_with('-');
        if rest.len() - unsigned.len() > 1 {
            return Err(self.error("a number has at most one sign"));
        }
        for (word, value) in [("Infinity", f64::INFINITY), ("NaN", f64::NAN)] {
            if unsigned.starts_with(word) {
                self.advance(rest.len() - unsigned.len() + word.len());
                return Ok(Bson::Double(if negative { -value } else { value }));
            }
        }
        let length = number_length(unsigned);
        let token = unsigned.get(..length).unwrap_or_default();
        let value = integer(token, negative)
            .or_else(|| double(token, negative))
            .ok_or_else(|| self.error(format!("{token:?} is not a number")))?;
        self.advance(rest.len() - unsigned.len() + length);
        Ok(value)
    }

    /// Reads `/pattern/options`.
    pub(super) fn regex(&mut self) -> Result<Bson, ParseError> {
        let start = self.position();
        let rest = self.rest();
        let mut in_class = false;
        let mut escaped = false;
        let mut end = None;
        for (index, c) in rest.char_indices().skip(1) {
            match c {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '[' => in_class = true,
                ']' => in_class = false,
                '/' if !in_class => {
                    end = Some(index);
                    break;
                }
                _ => {}
            }
        }
        let Some(end) = end else {
            return Err(self.error("the regular expression is not closed with '/'"));
        };
        let pattern = rest.get(1..end).unwrap_or_default().replace("\\/", "/");
        let options: String =
            rest.get(end + 1..).unwrap_or_default().chars().take_while(char::is_ascii_alphabetic).collect();
        self.advance(end + 1 + options.len());
        regex(&pattern, &options).map_err(|message| ParseError::new(start, message))
    }
}

/// A regular expression value; its options are sorted, as BSON wants them.
pub(super) fn regex(pattern: &str, options: &str) -> Result<Bson, String> {
    if let Some(unknown) = options.chars().find(|option| !"ilmsux".contains(*option)) {
        return Err(format!("unknown regular expression option '{unknown}'; there are i, m, s, x"));
    }
    let mut sorted: Vec<char> = options.chars().collect();
    sorted.sort_unstable();
    let nul = |_| "a regular expression must not contain a NUL character".to_owned();
    let pattern = CString::try_from(pattern.to_owned()).map_err(nul)?;
    let options = CString::try_from(sorted.into_iter().collect::<String>()).map_err(nul)?;
    Ok(Bson::RegularExpression(Regex { pattern, options }))
}

fn skip_to(chars: &mut std::str::CharIndices<'_>, offset: usize) {
    while chars.offset() < offset && chars.next().is_some() {}
}

/// What follows a backslash: one character, or none for an escaped line break.
fn escape(chars: &mut std::str::Chars<'_>) -> Result<Option<char>, String> {
    let c = chars.next().ok_or("the string is not closed")?;
    Ok(Some(match c {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'v' => '\u{b}',
        '0' => '\0',
        '\n' => return Ok(None),
        'x' => {
            let code = hex(chars, 2)?;
            char::from_u32(code).ok_or("\\x needs a character code")?
        }
        'u' => unicode(chars)?,
        other => other,
    }))
}

/// `\uXXXX`, a surrogate pair of two of them, or `\u{...}`.
fn unicode(chars: &mut std::str::Chars<'_>) -> Result<char, String> {
    const LONE: &str = "half of a surrogate pair is not a character";
    if chars.as_str().starts_with('{') {
        let digits: String = chars.by_ref().skip(1).take_while(|c| *c != '}').take(8).collect();
        return u32::from_str_radix(&digits, 16)
            .ok()
            .and_then(char::from_u32)
            .ok_or_else(|| format!("\\u{{{digits}}} is not a character"));
    }
    let high = hex(chars, 4)?;
    if !(0xD800..0xDC00).contains(&high) {
        return char::from_u32(high).ok_or_else(|| LONE.to_owned());
    }
    if chars.next() != Some('\\') || chars.next() != Some('u') {
        return Err(LONE.to_owned());
    }
    let low = hex(chars, 4)?;
    if !(0xDC00..0xE000).contains(&low) {
        return Err(LONE.to_owned());
    }
    char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)).ok_or_else(|| LONE.to_owned())
}

fn hex(chars: &mut std::str::Chars<'_>, count: usize) -> Result<u32, String> {
    let mut code = 0;
    for _ in 0..count {
        let digit = chars.next().and_then(|c| c.to_digit(16));
        code = code * 16 + digit.ok_or_else(|| format!("expected {count} hexadecimal digits"))?;
    }
    Ok(code)
}

/// Bytes of the longest prefix that can be a number without its sign.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    if text.starts_with("0x") || text.starts_with("0X") {
        return 2 + bytes.iter().skip(2).take_while(|b| b.is_ascii_hexdigit()).count();
    }
    let mut previous = b' ';
    let mut length = 0;
    for &byte in bytes {
        let sign_of_exponent = matches!(byte, b'-' | b'+') && matches!(previous, b'e' | b'E');
        if !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || sign_of_exponent) {
            break;
        }
        previous = byte;
        length += 1;
    }
    length
}

fn integer(token: &str, negative: bool) -> Option<Bson> {
    let magnitude = match token.strip_prefix("0x").or_else(|| token.strip_prefix("0X")) {
        Some(digits) => i128::from(u64::from_str_radix(digits, 16).ok()?),
        None if token.bytes().all(|b| b.is_ascii_digit()) => i128::from(token.parse::<u64>().ok()?),
        None => return None,
    };
    let value = if negative { -magnitude } else { magnitude };
    i32::try_from(value).map(Bson::Int32).or_else(|_| i64::try_from(value).map(Bson::Int64)).ok()
}

fn double(token: &str, negative: bool) -> Option<Bson> {
    // Rust's own parser also takes "inf" and "nan" in any case; here a number begins with a digit or a point.
    let numeric = token.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let value = token.parse::<f64>().ok().filter(|_| numeric)?;
    Some(Bson::Double(if negative { -value } else { value }))
}
