//! A file's bytes with `${NAME}` in them → the same bytes with values. Only known names are replaced; there is no
//! shell, and what was put in is not read again.

use super::env_file::is_name;
use std::collections::{BTreeMap, BTreeSet};

/// The values by name.
pub(super) type Variables = BTreeMap<String, Vec<u8>>;

/// A piece of a template.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    /// As it is written.
    Text(&'a [u8]),
    /// `${NAME}` of a known name.
    Variable(&'a str),
}

/// What came of one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    /// The bytes.
    pub(super) content: Vec<u8>,
    /// How many places were filled.
    pub(super) replaced: usize,
    /// Names that nobody knows: they were left as they are.
    pub(super) unknown: BTreeSet<String>,
}

/// Fills in a template.
pub(super) fn render(template: &[u8], variables: &Variables) -> Rendered {
    let mut rendered = Rendered {
        content: Vec::with_capacity(template.len()),
        replaced: 0,
        unknown: BTreeSet::new(),
    };
    for piece in pieces(template, variables, &mut rendered.unknown) {
        match piece {
            Piece::Text(text) => rendered.content.extend_from_slice(text),
            Piece::Variable(name) => {
                rendered.replaced += 1;
                rendered.content.extend(variables.get(name).into_iter().flatten());
            }
        }
    }
    rendered
}

/// Whether `content` is `template` with any values, of one line each, in the places of known names: what a rotated
/// secret leaves behind.
pub(super) fn is_rendering_of(template: &[u8], variables: &Variables, content: &[u8]) -> bool {
    let mut unknown = BTreeSet::new();
    let pieces = pieces(template, variables, &mut unknown);
    let mut rest = content;
    let mut is_open = false;
    let is_one_line = |value: &[u8]| !value.contains(&b'\n');
    let last = pieces.len();
    for (index, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Variable(_) => is_open = true,
            Piece::Text(text) if !is_open => match rest.strip_prefix(*text) {
                Some(behind) => rest = behind,
                None => return false,
            },
            // The last text must reach the end, the others lie at their first place.
            Piece::Text(text) if index + 1 == last => return rest.strip_suffix(*text).is_some_and(is_one_line),
            Piece::Text(text) => match find(rest, text) {
                Some(at) if is_one_line(&rest[..at]) => {
                    rest = &rest[at + text.len()..];
                    is_open = false;
                }
                _ => return false,
            },
        }
    }
    if is_open { is_one_line(rest) } else { rest.is_empty() }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn pieces<'a>(template: &'a [u8], variables: &Variables, unknown: &mut BTreeSet<String>) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut text_start = 0;
    let mut at = 0;
    while let Some(open) = find(&template[at..], b"${") {
        let start = at + open;
        let name_start = start + 2;
        let Some(length) = template[name_start..].iter().position(|byte| *byte == b'}') else {
            break;
        };
        at = name_start;
        let name = std::str::from_utf8(&template[name_start..name_start + length]).unwrap_or_default();
        if !is_name(name) {
            continue;
        }
        if !variables.contains_key(name) {
            unknown.insert(name.to_owned());
            continue;
        }
        if text_start < start {
            pieces.push(Piece::Text(&template[text_start..start]));
        }
        pieces.push(Piece::Variable(name));
        at = name_start + length + 1;
        text_start = at;
    }
    if text_start < template.len() {
        pieces.push(Piece::Text(&template[text_start..]));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn variables() -> Variables {
        [("USER", "it's \"me\" $x"), ("PASS", "a=b\n${USER}&"), ("EMPTY", "")]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
            .into()
    }

    #[test]
    fn only_known_names_are_replaced_and_values_are_not_read_again() {
        let rendered = render(
            b"u: ${USER}\np: ${PASS}${EMPTY}\nx: ${OTHER} $USER ${USER:-y} ${",
            &variables(),
        );
        assert_eq!(
            String::from_utf8(rendered.content).unwrap(),
            "u: it's \"me\" $x\np: a=b\n${USER}&\nx: ${OTHER} $USER ${USER:-y} ${"
        );
        assert_eq!(rendered.replaced, 3);
        assert_eq!(rendered.unknown.into_iter().collect::<Vec<_>>(), ["OTHER"]);
    }

    #[test]
    fn bytes_that_are_no_text_pass() {
        let rendered = render(b"\xff${USER}\xfe${\xff}", &variables());
        assert!(rendered.content.starts_with(b"\xff") && rendered.content.ends_with(b"\xfe${\xff}"));
    }

    #[test]
    fn a_rendering_with_an_older_value_is_known_and_an_edited_one_is_not() {
        let template = b"host: h\npassword: ${PASS}\nuser: ${USER}";
        assert!(is_rendering_of(
            template,
            &variables(),
            b"host: h\npassword: old\nuser: someone"
        ));
        assert!(!is_rendering_of(
            template,
            &variables(),
            b"host: other\npassword: old\nuser: someone"
        ));
        assert!(!is_rendering_of(
            template,
            &variables(),
            b"host: h\npassword: old\nname: someone"
        ));
        assert!(!is_rendering_of(b"no variable", &variables(), b"something else"));
        assert!(!is_rendering_of(b"${PASS} end", &variables(), b"x end."));
    }

    proptest! {
        #[test]
        fn every_rendering_is_known_as_one(parts in prop::collection::vec(prop_oneof![
            "[a-z\n$]{1,5}", Just("${USER}".to_owned()), Just("${EMPTY}".to_owned())], 0..8)) {
            let template = parts.concat();
            let rendered = render(template.as_bytes(), &variables());
            prop_assert!(is_rendering_of(template.as_bytes(), &variables(), &rendered.content));
        }
    }
}
