//! Whether a statement is complete: all brackets, strings and comments closed.
//!
//! Asked by the line editor (Enter on an open bracket starts another line) and by the reader of scripts.

/// How the text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Everything is closed, or closed wrongly, which the parser will report.
    Closed,
    /// A bracket or a block comment is open: more lines must follow.
    Open,
}

/// Looks at brackets outside of strings, regular expressions and comments.
pub fn balance(text: &str) -> Balance {
    let mut open = Vec::new();
    let mut previous = '(';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('(', _) => open.push(')'),
            ('[', _) => open.push(']'),
            ('{', _) => open.push('}'),
            // No further line mends a bracket that closes another one.
            (')' | ']' | '}', _) if open.pop() != Some(c) => return Balance::Closed,
            ('"' | '\'', _) => skip_quoted(&mut chars, c),
            ('/', Some('/')) => while chars.next_if(|c| *c != '\n').is_some() {},
            ('/', Some('*')) => {
                let closed = skip_comment(&mut chars);
                if !closed {
                    return Balance::Open;
                }
            }
            // A value may begin here, so this is a regular expression.
            ('/', _) if matches!(previous, '(' | ',' | ':' | '[') => skip_quoted(&mut chars, c),
            _ => {}
        }
        if !c.is_whitespace() {
            previous = c;
        }
    }
    if open.is_empty() { Balance::Closed } else { Balance::Open }
}

/// A string ends at its quote or, unclosed, at the line's end.
fn skip_quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, quote: char) {
    while let Some(c) = chars.next_if(|c| *c != '\n') {
        match c {
            '\\' => {
                chars.next();
            }
            c if c == quote => return,
            _ => {}
        }
    }
}

/// True if the comment is closed.
fn skip_comment(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> bool {
    let mut previous = ' ';
    chars.next();
    for c in chars.by_ref() {
        if previous == '*' && c == '/' {
            return true;
        }
        previous = c;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_goes_on_while_a_bracket_is_open_and_ends_where_one_is_closed_wrongly() {
        for open in ["db.a.find({", "db.a.find({b: [1,", "find a {b: \")\"", "f(/[)]/", "/* {"] {
            assert_eq!(balance(open), Balance::Open, "{open}");
        }
        for closed in ["db.a.find({b: [1]})", "find a", "db.a.find({)", "f([}", "f())", "f(\"{[\") // ("] {
            assert_eq!(balance(closed), Balance::Closed, "{closed}");
        }
    }
}
