//! `store-id`: which store a place lies in. Written once, by the holder of the place, and carried along wherever the place is
//! copied. A store that answers with nothing, or with another id, is not the one that was there: a NAS before its disk is
//! mounted, another bucket under the same name. Bytes ↔ a type.

use super::records::{VERSION, decode, encode};
use super::{Error, Store, keys};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

/// Digits of an id.
const DIGITS: usize = 32;

/// A store's id: 32 hexadecimal digits, drawn at random.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoreId(String);

/// A text that is no store's id.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no store's id")]
pub struct NotAnId(String);

impl StoreId {
    /// A new one.
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0; DIGITS / 2];
        let mut draw = || -> io::Result<()> { std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes) };
        draw().map_err(|source| Error::Local {
            what: "/dev/urandom can't be read".to_owned(),
            source,
        })?;
        Ok(Self(keys::hex(&bytes)))
    }

    /// Its digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StoreId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let is_id = text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_id
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| NotAnId(text.to_owned()))
    }
}

impl TryFrom<String> for StoreId {
    type Error = NotAnId;

    fn try_from(text: String) -> Result<Self, NotAnId> {
        text.parse()
    }
}

impl From<StoreId> for String {
    fn from(id: StoreId) -> Self {
        id.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identified {
    version: u32,
    id: StoreId,
    time: Timestamp,
}

/// The id in the object of these bytes. One that was cut off says nothing: its holder, who knows it, writes it again.
pub fn of_bytes(store: &dyn Store, bytes: &[u8]) -> Option<StoreId> {
    decode::<Identified>(bytes)
        .inspect_err(|damage| {
            tracing::warn!("{}: {} says nothing: {damage}", store.destination(), keys::STORE_ID);
        })
        .ok()
        .map(|identified| identified.id)
}

/// The id that a store has; `None` where nobody has written one.
pub async fn read(store: &dyn Store) -> Result<Option<StoreId>, Error> {
    match store.read(keys::STORE_ID).await {
        Ok(bytes) => Ok(of_bytes(store, &bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) if error.is_damaged() => {
            tracing::warn!("{error}: it says nothing");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Writes the id, for the first time or again. Only for the holder of the place.
pub async fn write(store: &dyn Store, id: &StoreId) -> Result<(), Error> {
    let identified = Identified {
        version: VERSION,
        id: id.clone(),
        time: Timestamp::now(),
    };
    store.write(keys::STORE_ID, &encode(&identified)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn an_id_comes_back_as_it_was_written_and_one_that_was_cut_off_says_nothing() {
        let store = Memory::default();
        assert_eq!(read(&store).await.unwrap(), None);
        let id = StoreId::random().unwrap();
        write(&store, &id).await.unwrap();
        assert_eq!(read(&store).await.unwrap(), Some(id.clone()));
        assert_ne!(StoreId::random().unwrap(), id);
        let whole = store.objects()[keys::STORE_ID].clone();
        for cut in [0, 1, whole.len() / 2] {
            store.objects().insert(keys::STORE_ID.to_owned(), whole[..cut].to_vec());
            assert_eq!(read(&store).await.unwrap(), None, "{cut}");
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "0123",
            "0123456789ABCDEF0123456789ABCDEF",
            "../3456789abcdef0123456789abcdef",
        ] {
            assert!(text.parse::<StoreId>().is_err(), "{text}");
        }
        let text = "0123456789abcdef0123456789abcdef";
        assert_eq!(text.parse::<StoreId>().unwrap().to_string(), text);
    }
}
