//! The id of a question that only a person decides: `hold-1a2b3c4d`. Text ↔ a value. Pure.

use super::Invalid;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// What a question is about: the word that its id begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuestionKind {
    /// Deletions are held: may they go?
    Hold,
    /// Files that nobody has: go on without them?
    Missing,
    /// A repository of somebody else, who is gone: take it over?
    TakeOver,
    /// A folder of the repository that no volume has, and a volume without files: is it that one's?
    Folder,
    /// A repository that is empty where there was a backup: start as new?
    StartNew,
    /// What the policy no longer takes, and is carried along: may it go?
    Excluded,
    /// A writer of another cluster that shows no sign of life between its runs: write in its place?
    Write,
}

impl QuestionKind {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Hold, "hold"),
        (Self::Missing, "missing"),
        (Self::TakeOver, "takeover"),
        (Self::Folder, "folder"),
        (Self::StartNew, "startnew"),
        (Self::Excluded, "excluded"),
        (Self::Write, "write"),
    ];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("", |(_, word)| word)
    }
}

/// A question's id: the same question has the same id each time, in every pod and after every restart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(String);

impl QuestionId {
    /// The id of the question of this kind about these facts. What makes two questions different ones has to be among
    /// the facts; what is only said of it (counts that grow, a time) must not.
    #[must_use]
    pub fn new(kind: QuestionKind, facts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for fact in facts {
            hash.update((fact.len() as u64).to_le_bytes());
            hash.update(fact);
        }
        let digest = hash.finalize();
        let head = digest
            .iter()
            .take(4)
            .fold(0, |head: u32, byte| head << 8 | u32::from(*byte));
        Self(format!("{}-{head:08x}", kind.as_str()))
    }

    /// What it is about.
    #[must_use]
    pub fn kind(&self) -> Option<QuestionKind> {
        let (word, _) = self.0.split_once('-')?;
        let known = QuestionKind::ALL.iter().find(|(_, known)| *known == word);
        known.map(|(kind, _)| *kind)
    }

    /// The ids of a comma-separated text, as a request carries them. What is no id answers nothing.
    #[must_use]
    pub fn of_list(text: Option<&str>) -> Vec<Self> {
        let items = text.unwrap_or_default().split(',');
        items.filter_map(|item| item.trim().parse().ok()).collect()
    }

    /// The text of [`Self::of_list`]; none for no ids.
    #[must_use]
    pub fn to_list(ids: &[Self]) -> Option<String> {
        let ids: Vec<&str> = ids.iter().map(Self::as_str).collect();
        (!ids.is_empty()).then(|| ids.join(","))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QuestionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for QuestionId {
    type Err = Invalid;

    /// Takes ids of kinds that a later release knows: what it does not ask, it does not find answered.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
        let is_hash = |hash: &str| hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        match text.split_once('-') {
            Some((word, hash)) if is_word(word) && is_hash(hash) => Ok(Self(text.to_ascii_lowercase())),
            _ => Err(Invalid::allowed(
                "the id of a question, such as hold-1a2b3c4d, as the log, the status and an Event say it",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_question_has_the_same_id_and_another_has_another() {
        let id = |facts: &[&[u8]]| QuestionId::new(QuestionKind::Hold, facts);
        assert_eq!(id(&[b"a", b"b"]), id(&[b"a", b"b"]));
        assert_ne!(id(&[b"a", b"b"]), id(&[b"ab"]));
        assert_eq!(id(&[b"x"]).as_str(), "hold-f91b14e7", "in every release");
        for (kind, word) in QuestionKind::ALL {
            let id = QuestionId::new(kind, &[b"x"]);
            assert!(id.as_str().starts_with(word), "{id}");
            assert_eq!(id.kind(), Some(kind));
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "hold",
            "hold-",
            "hold-1a2b3c4",
            "hold-1a2b3c4g",
            "yes",
            "hold 1a2b3c4d",
        ] {
            assert!(text.parse::<QuestionId>().is_err(), "{text}");
        }
        let ids: Vec<QuestionId> = ["hold-1a2b3c4d", "missing-00000000"]
            .map(|id| id.parse().unwrap())
            .into();
        assert_eq!(QuestionId::of_list(QuestionId::to_list(&ids).as_deref()), ids);
        assert_eq!(QuestionId::to_list(&[]), None);
        assert_eq!("later-1a2b3c4d".parse::<QuestionId>().unwrap().kind(), None);
    }
}
