//! The text of an env file → names and values. Quotes, `export`, spaces and `=` in values, comments; no shell.

use std::collections::BTreeMap;

/// A line that is neither a variable, nor a comment, nor empty.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not NAME=value")]
pub struct NotAVariable {
    /// Counted from 1.
    pub line: usize,
}

/// Reads an env file. The last of two lines of one name counts.
///
/// `'…'` is literal; in `"…"` the escapes `\n`, `\t`, `\r`, `\"`, `\\` and `\$` are read; both may span lines. Without
/// quotes the value ends at the line's end or at ` #`, without the spaces around it.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, NotAVariable> {
    let mut variables = BTreeMap::new();
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        let (this, _) = rest.split_once('\n').unwrap_or((rest, ""));
        let content = this.trim();
        if content.is_empty() || content.starts_with('#') {
            rest = rest.get(this.len() + 1..).unwrap_or_default();
            line += 1;
            continue;
        }
        let (name, _) = this.split_once('=').ok_or(NotAVariable { line })?;
        let after = &rest[name.len() + 1..];
        let name = name.trim();
        let name = name
            .strip_prefix("export")
            .filter(|rest| rest.starts_with([' ', '\t']))
            .unwrap_or(name)
            .trim();
        if !is_name(name) {
            return Err(NotAVariable { line });
        }
        let (value, length) = value(after).ok_or(NotAVariable { line })?;
        variables.insert(name.to_owned(), value);
        line += after[..length].matches('\n').count();
        rest = &after[length..];
    }
    Ok(variables)
}

/// What may stand between `${` and `}`, and before the `=` of an env file.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// The value at the start of a text, and how many bytes it takes, its line's end included.
fn value(text: &str) -> Option<(String, usize)> {
    let start = text.len() - text.trim_start_matches([' ', '\t']).len();
    let quote = text[start..].chars().next().filter(|c| matches!(c, '\'' | '"'));
    let Some(quote) = quote else {
        let line = text.split_inclusive('\n').next().unwrap_or_default();
        let content = line.trim_end_matches(['\n', '\r']);
        let end = [" #", "\t#"].iter().filter_map(|mark| content.find(mark)).min();
        return Some((content[..end.unwrap_or(content.len())].trim().to_owned(), line.len()));
    };
    let mut value = String::new();
    let mut characters = text[start + 1..].char_indices();
    while let Some((offset, c)) = characters.next() {
        match c {
            _ if c == quote => {
                let rest = &text[start + 1 + offset + 1..];
                let line = rest.split_inclusive('\n').next().unwrap_or_default();
                let behind = line.trim();
                if !behind.is_empty() && !behind.starts_with('#') {
                    return None;
                }
                return Some((value, start + 1 + offset + 1 + line.len()));
            }
            '\\' if quote == '"' => match characters.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                c @ ('"' | '\\' | '$') => value.push(c),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().collect()
    }

    fn one(text: &str) -> String {
        read(text).remove(0).1
    }

    #[test]
    fn quotes_export_spaces_equals_signs_and_comments_are_read_as_people_mean_them() {
        assert_eq!(one("A=b=c==\n"), "b=c==");
        assert_eq!(one("export A = two words  # said\r\n"), "two words");
        assert_eq!(one("A='it costs $5 \\n #1'"), "it costs $5 \\n #1");
        assert_eq!(one("A=\"a \\\"b\\\" \\$c\\n\" # d"), "a \"b\" $c\n");
        assert_eq!(one("A=\"two\nlines\"\nB=1"), "two\nlines");
        assert_eq!(one("A="), "");
        assert_eq!(one("A=pa#ss"), "pa#ss");
        assert_eq!(read("# x\n\nA=1\nB=2\nA=3").len(), 2);
        assert_eq!(one("exported=1"), "1");
    }

    #[test]
    fn a_line_that_is_no_variable_is_named() {
        assert_eq!(parse("A=1\n\nnonsense\n"), Err(NotAVariable { line: 3 }));
        assert_eq!(parse("A=\"never closed\n"), Err(NotAVariable { line: 1 }));
        assert_eq!(parse("A=\"x\ny\"\n=1"), Err(NotAVariable { line: 3 }));
        assert_eq!(parse("A='x' y"), Err(NotAVariable { line: 1 }));
    }
}
