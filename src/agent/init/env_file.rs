//! An env file (`KEY=value` lines) → names and values. What shells, Docker and dotenv agree on: comments, `export`,
//! quotes that may span lines, and values with `=`, spaces and `$`. Nothing is expanded. Pure.

/// Reads an env file. The error names the line.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut variables = Vec::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut number = 1;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let start = line.trim_start();
        if start.is_empty() || start.starts_with('#') || start == "\r" {
            rest = after;
            number += 1;
            continue;
        }
        let assignment = match start.strip_prefix("export") {
            Some(exported) if exported.starts_with([' ', '\t']) => exported.trim_start(),
            _ => start,
        };
        let Some((name, value)) = assignment.split_once('=') else {
            return Err(format!("line {number} has no '='"));
        };
        let name = name.trim_end();
        if !is_name(name) {
            return Err(format!("line {number} does not begin with a variable's name"));
        }
        // From the value on, in the whole text: a quoted one may go on below.
        let at = text_offset(rest, value);
        let (value, length) =
            value_at(&rest[at..]).ok_or_else(|| format!("the quote of line {number} is not closed"))?;
        variables.push((name.to_owned(), value));
        let consumed = &rest[..at + length];
        number += consumed.matches('\n').count();
        rest = match rest[at + length..].split_once('\n') {
            Some((_, after)) => {
                number += 1;
                after
            }
            None => "",
        };
    }
    Ok(variables)
}

/// Whether a text can stand in `${…}`. Keys of Secrets may hold `-` and `.` too.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// How far into `whole` its part `part` begins.
fn text_offset(whole: &str, part: &str) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

/// The value that a text begins with, and how many bytes of it that takes.
fn value_at(text: &str) -> Option<(String, usize)> {
    let blank = text.len() - text.trim_start_matches([' ', '\t']).len();
    let body = &text[blank..];
    match body.chars().next() {
        Some('\'') => {
            let end = body[1..].find('\'')?;
            Some((body[1..=end].to_owned(), blank + end + 2))
        }
        Some('"') => {
            let mut value = String::new();
            let mut characters = body.char_indices().skip(1);
            while let Some((at, c)) = characters.next() {
                match c {
                    '"' => return Some((value, blank + at + 1)),
                    '\\' => match characters.next()?.1 {
                        'n' => value.push('\n'),
                        'r' => value.push('\r'),
                        't' => value.push('\t'),
                        escaped @ ('"' | '\\' | '$' | '`') => value.push(escaped),
                        '\n' => {}
                        other => {
                            value.push('\\');
                            value.push(other);
                        }
                    },
                    _ => value.push(c),
                }
            }
            None
        }
        _ => {
            let line = body.split('\n').next().unwrap_or_default();
            let value = match line.find(" #") {
                Some(comment) => &line[..comment],
                None if line.starts_with('#') => "",
                None => line,
            };
            Some((value.trim_end().to_owned(), blank + line.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap()
    }

    fn one(text: &str) -> String {
        let variables = parsed(text);
        assert_eq!(variables.len(), 1, "{text:?}");
        variables[0].1.clone()
    }

    #[test]
    fn values_are_read_as_they_were_meant() {
        for (text, expected) in [
            ("A=plain", "plain"),
            ("A=with=equals==", "with=equals=="),
            ("A=two words", "two words"),
            ("  export A = spaced", "spaced"),
            ("A=value # comment", "value"),
            ("A=pass#word", "pass#word"),
            ("A=$dollar${brace}", "$dollar${brace}"),
            ("A='single \"$x\" #quoted'", "single \"$x\" #quoted"),
            (
                "A=\"double \\\"quoted\\\" \\$x\\n\" # comment",
                "double \"quoted\" $x\n",
            ),
            ("A=\"C:\\path\"", "C:\\path"),
            ("A='two\nlines'", "two\nlines"),
            ("A=\"two\nlines\"", "two\nlines"),
            ("A=", ""),
            ("A=\"\"", ""),
            ("A=windows\r\n", "windows"),
            ("\u{feff}A=marked", "marked"),
        ] {
            assert_eq!(one(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_file_of_many_lines_is_read_whole() {
        let text = "# a comment\n\nexport USER=\"me\"\nKEY='a\nb'\nEXPORTED=1\nlast=x";
        let names: Vec<String> = parsed(text).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["USER", "KEY", "EXPORTED", "last"]);
    }

    #[test]
    fn what_is_no_env_file_is_refused_by_its_line_and_never_by_its_content() {
        let error = parse("A=1\nB='x\ny'\nhunter2 hunter2\n").unwrap_err();
        assert_eq!(error, "line 4 has no '='");
        assert_eq!(parse("A='open\nB=2").unwrap_err(), "the quote of line 1 is not closed");
        assert!(parse("1A=x").is_err());
    }
}
