//! Which files of a volume are taken: rclone's filter patterns, evaluated here, on raw bytes. Pure: no I/O.
//!
//! rclone is never asked to filter, since only named files are given to it. The language is rclone's: `/` at the
//! beginning anchors at the volume's root, otherwise a pattern matches the end of a path, from any folder on; `*` and `?`
//! stay within a name, `**` crosses folders, `[…]` is a class, `{a,b}` alternatives, `\` takes the next character as
//! it is, and `dir/` stands for `dir/**`. Regular expressions (`{{…}}`) are refused.

use crate::agent::arguments::Size;
use std::fmt;

/// Left out whatever the owner says: the agent's own folder, Litestream's, and what `mkfs` leaves behind.
const ALWAYS: [&str; 4] = [
    "/.vixens-backup/**",
    ".*-litestream/**",
    "lost+found/**",
    // A database that was found damaged at a start, and its log.
    "*.damaged-????????T??????Z*",
];
/// Left out by default; the owner's patterns add to these (lesson: one exclude replaced the list).
const DEFAULTS: [&str; 3] = ["*.log", "*.tmp", ".cache/**"];
/// More alternatives than anybody writes by hand; braces multiply.
const MOST_ALTERNATIVES: usize = 256;

/// Why a pattern can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {pattern:?} is not an rclone filter pattern: {why}")]
pub struct InvalidPattern {
    pattern: String,
    why: &'static str,
}

/// Why a file is not backed up: the `reason` of `vixens_backup_skipped_files`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skipped {
    /// Ours, Litestream's, or `lost+found`.
    Internal,
    /// A default or an owner's exclude.
    Excluded,
    /// There are includes, and none of them takes it.
    NotIncluded,
    /// Above `max-size`.
    TooLarge,
    /// A socket, pipe or device.
    Special,
    /// It can't be read.
    Unreadable,
    /// A database that is locked or damaged.
    Database,
    /// The store does not take it as it is now, or can't keep what it has of it.
    Stuck,
}

impl Skipped {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Internal,
        Self::Excluded,
        Self::NotIncluded,
        Self::TooLarge,
        Self::Special,
        Self::Unreadable,
        Self::Database,
        Self::Stuck,
    ];

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Excluded => "excluded",
            Self::NotIncluded => "not-included",
            Self::TooLarge => "too-large",
            Self::Special => "special",
            Self::Unreadable => "unreadable",
            Self::Database => "database",
            Self::Stuck => "stuck",
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The patterns of one workload, parsed once.
#[derive(Clone, Debug)]
pub struct Filters {
    always: Vec<Pattern>,
    excludes: Vec<Pattern>,
    includes: Vec<Pattern>,
    max_size: Option<Size>,
}

impl Filters {
    /// The owner's patterns beside the defaults.
    pub fn new(includes: &[String], excludes: &[String], max_size: Option<Size>) -> Result<Self, InvalidPattern> {
        let parse = |patterns: Vec<&str>| -> Result<Vec<Pattern>, InvalidPattern> {
            patterns.iter().map(|p| Pattern::parse(p)).collect()
        };
        Ok(Self {
            always: parse(ALWAYS.to_vec())?,
            excludes: parse(
                DEFAULTS
                    .into_iter()
                    .chain(excludes.iter().map(String::as_str))
                    .collect(),
            )?,
            includes: parse(includes.iter().map(String::as_str).collect())?,
            max_size,
        })
    }

    /// Whether a file (or symlink) of this path, relative to the volume, is left out.
    #[must_use]
    pub fn file(&self, path: &[u8], size: u64) -> Option<Skipped> {
        let characters = decode(path);
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(&characters));
        if any(&self.always) {
            Some(Skipped::Internal)
        } else if any(&self.excludes) {
            Some(Skipped::Excluded)
        } else if !self.includes.is_empty() && !any(&self.includes) {
            Some(Skipped::NotIncluded)
        } else if self.max_size.is_some_and(|most| size > most.0) {
            Some(Skipped::TooLarge)
        } else {
            None
        }
    }

    /// Whether everything below a folder is left out, so that nobody needs to look into it.
    #[must_use]
    pub fn folder(&self, path: &[u8]) -> Option<Skipped> {
        let characters = decode(path);
        let below = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.covers(&characters));
        if below(&self.always) {
            Some(Skipped::Internal)
        } else if below(&self.excludes) {
            Some(Skipped::Excluded)
        } else {
            None
        }
    }

    /// Whether folders are of interest only where a file below them is taken.
    #[must_use]
    pub const fn narrows(&self) -> bool {
        !self.includes.is_empty()
    }
}

/// One pattern, its braces expanded.
#[derive(Clone, Debug)]
struct Pattern {
    anchored: bool,
    alternatives: Vec<Vec<Token>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Character(u32),
    /// `?`
    One,
    /// `*`
    Star,
    /// `**`
    Any,
    Class {
        negated: bool,
        ranges: Vec<(u32, u32)>,
    },
}

const SLASH: u32 = '/' as u32;

/// A path's characters; a byte that is no UTF-8 becomes a number beyond every character.
fn decode(path: &[u8]) -> Vec<u32> {
    let mut characters = Vec::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        characters.extend(chunk.valid().chars().map(u32::from));
        characters.extend(chunk.invalid().iter().map(|byte| 0x0011_0000 + u32::from(*byte)));
    }
    characters
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let refusal = |why| InvalidPattern {
            pattern: text.to_owned(),
            why,
        };
        let (anchored, rest) = match text.strip_prefix('/') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.is_empty() {
            return Err(refusal("it is empty"));
        }
        let characters: Vec<char> = rest.chars().collect();
        let mut parser = Parser {
            characters: &characters,
            at: 0,
        };
        let mut alternatives = parser.sequence(false).map_err(refusal)?;
        for tokens in &mut alternatives {
            // A folder's pattern is everything below it.
            if tokens.last() == Some(&Token::Character(SLASH)) {
                tokens.push(Token::Any);
            }
        }
        Ok(Self { anchored, alternatives })
    }

    fn matches(&self, path: &[u32]) -> bool {
        self.starts(path).any(|start| {
            self.alternatives.iter().any(|tokens| {
                // Most patterns end in letters that most paths do not end in.
                let ends = match tokens.last() {
                    Some(Token::Character(last)) => path.last() == Some(last),
                    _ => true,
                };
                ends && run(tokens, &path[start..]).contains(&tokens.len())
            })
        })
    }

    /// Whether the pattern takes every path below the folder `path`: it ends in `**` and gets there at its slash.
    fn covers(&self, path: &[u32]) -> bool {
        let mut folder = path.to_vec();
        folder.push(SLASH);
        self.starts(&folder).any(|start| {
            self.alternatives.iter().any(|tokens| {
                tokens.last() == Some(&Token::Any) && run(tokens, &folder[start..]).contains(&tokens.len())
            })
        })
    }

    /// Where in a path a match may begin.
    fn starts<'a>(&self, path: &'a [u32]) -> impl Iterator<Item = usize> + use<'a> {
        let anchored = self.anchored;
        (0..path.len()).filter(move |at| *at == 0 || (!anchored && path[*at - 1] == SLASH))
    }
}

/// Which positions of `tokens` are reached once all of `path` is read: a walk over states, so that no pattern can
/// take exponential time.
fn run(tokens: &[Token], path: &[u32]) -> Vec<usize> {
    let mut states = vec![0];
    close(tokens, &mut states);
    for character in path {
        let mut next = Vec::with_capacity(states.len() + 1);
        for state in states {
            let target = match tokens.get(state) {
                Some(Token::Any) => state,
                Some(Token::Star) if *character != SLASH => state,
                Some(Token::One) if *character != SLASH => state + 1,
                Some(Token::Character(expected)) if expected == character => state + 1,
                Some(Token::Class { negated, ranges })
                    if *character != SLASH
                        && ranges.iter().any(|(low, high)| (low..=high).contains(&character)) != *negated =>
                {
                    state + 1
                }
                _ => continue,
            };
            if !next.contains(&target) {
                next.push(target);
            }
        }
        close(tokens, &mut next);
        if next.is_empty() {
            return next;
        }
        states = next;
    }
    states
}

/// `*` and `**` may stand for nothing.
fn close(tokens: &[Token], states: &mut Vec<usize>) {
    let mut index = 0;
    while let Some(state) = states.get(index).copied() {
        if matches!(tokens.get(state), Some(Token::Star | Token::Any)) && !states.contains(&(state + 1)) {
            states.push(state + 1);
        }
        index += 1;
    }
}

struct Parser<'a> {
    characters: &'a [char],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += 1;
        Some(character)
    }

    /// A run of tokens in every way its braces can be read; within braces it ends at `,` or `}`.
    fn sequence(&mut self, within_braces: bool) -> Result<Vec<Vec<Token>>, &'static str> {
        let mut ways: Vec<Vec<Token>> = vec![Vec::new()];
        while let Some(character) = self.peek() {
            if within_braces && matches!(character, ',' | '}') {
                break;
            }
            self.at += 1;
            let token = match character {
                '*' => {
                    let mut stars = 1;
                    while self.peek() == Some('*') {
                        self.at += 1;
                        stars += 1;
                    }
                    match stars {
                        1 => Token::Star,
                        2 => Token::Any,
                        _ => return Err("more than two stars in a row"),
                    }
                }
                '?' => Token::One,
                '[' => self.class()?,
                ']' => return Err("a ']' without its '['"),
                '}' => return Err("a '}' without its '{'"),
                '{' if self.peek() == Some('{') => return Err("regular expressions in {{…}} are not supported"),
                '{' => {
                    let choices = self.braces()?;
                    if ways.len() * choices.len() > MOST_ALTERNATIVES {
                        return Err("its braces stand for more than 256 patterns");
                    }
                    ways = ways
                        .iter()
                        .flat_map(|way| {
                            choices
                                .iter()
                                .map(move |choice| [way.as_slice(), choice.as_slice()].concat())
                        })
                        .collect();
                    continue;
                }
                '\\' => Token::Character(self.next().ok_or("it ends in a backslash")?.into()),
                other => Token::Character(other.into()),
            };
            for way in &mut ways {
                way.push(token.clone());
            }
        }
        Ok(ways)
    }

    fn braces(&mut self) -> Result<Vec<Vec<Token>>, &'static str> {
        let mut choices = Vec::new();
        loop {
            choices.extend(self.sequence(true)?);
            match self.next() {
                Some(',') => {}
                Some('}') => return Ok(choices),
                _ => return Err("a '{' without its '}'"),
            }
        }
    }

    fn class(&mut self) -> Result<Token, &'static str> {
        const OPEN: &str = "a '[' without its ']'";
        let negated = matches!(self.peek(), Some('^' | '!'));
        if negated {
            self.at += 1;
        }
        let mut ranges = Vec::new();
        loop {
            let low = match self.next().ok_or(OPEN)? {
                ']' if !ranges.is_empty() => return Ok(Token::Class { negated, ranges }),
                '\\' => self.next().ok_or(OPEN)?,
                other => other,
            };
            let high = if self.peek() == Some('-') && self.characters.get(self.at + 1).is_some_and(|c| *c != ']') {
                self.at += 1;
                match self.next().ok_or(OPEN)? {
                    '\\' => self.next().ok_or(OPEN)?,
                    other => other,
                }
            } else {
                low
            };
            if high < low {
                return Err("a range in '[…]' runs backwards");
            }
            ranges.push((low.into(), high.into()));
        }
    }
}

#[cfg(test)]
mod tests;
