//! Whether a place is still ours: its claims, and what tells one store from another, against what its writer knows of it.
//! Facts in, a word out; the store is only read. A newer claim fences at once. Anything else that is not as it was is not
//! believed: it is a store that is away, though it answers.

use crate::store::claims::{self, Claim, Holder};
use crate::store::records::encode;
use crate::store::state::{self, State};
use crate::store::store_id::{self, StoreId};
use crate::store::{self, Store, keys};

/// Somebody else may write here, and we may not any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fenced {
    /// A newer claim.
    #[error(
        "{destination} was taken over by epoch {}, volume {} (ours is {}): this pod has stopped writing there",
        holder.epoch, holder.volume_id, ours.epoch
    )]
    TakenOver {
        /// Where.
        destination: String,
        /// Who holds it.
        holder: Holder,
        /// Our claim.
        ours: Holder,
    },
    /// The place was never ours.
    #[error("{destination} may not be written by this pod: {why}")]
    Never {
        /// Where.
        destination: String,
        /// Why.
        why: String,
    },
    /// A newer release writes here.
    #[error("{why}; until then this pod has stopped writing there")]
    Newer {
        /// What of it was found.
        why: String,
    },
}

/// The store answers, and what it shows is not what we know of it. It may be back in a moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{destination} answers, but is not the store that was here: {why}; nothing is written there until it is back")]
pub struct Away {
    /// Where.
    pub destination: String,
    /// What it shows.
    pub why: String,
}

/// Why a place can't be written to.
#[derive(Debug, thiserror::Error)]
pub enum NotHeld {
    /// Nobody knows.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// It is somebody else's.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// It is another store than it was.
    #[error(transparent)]
    Away(#[from] Away),
}

/// A place that we hold: our claim, and what the place is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our claim, as its name tells it.
    pub holder: Holder,
    /// Which store it is, once that is known.
    pub store_id: Option<StoreId>,
    /// Our claim as it lies in the store: it is written again, the same bytes.
    claim: Vec<u8>,
}

/// What a look at a place shows that had not been ours a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// All is as it was.
    Ours,
    /// A newer claim.
    TakenOver(Holder),
    /// It is our store, nobody has come, and our claim is gone: a rule of the bucket removes what is old.
    ClaimGone,
    /// It is our store as it was before we claimed it, or a place that was ours before: somebody has put back an older copy.
    Older(String),
    /// It is empty, or another store.
    Elsewhere(String),
}

/// Whether a place is still ours, from its claims in order, as the store listed them. Where there are none at all, the store
/// has to be asked whether that can be believed: with a wrong password, a crypt remote looks empty.
pub async fn check(store: &dyn Store, claims: &[Holder], ours: &Holder) -> Result<(), NotHeld> {
    if claims.is_empty() {
        store.probe().await?;
    }
    let destination = store.destination();
    match claims.last() {
        Some(holder) if holder == ours => Ok(()),
        Some(holder) if holder > ours => Err(Fenced::TakenOver {
            destination,
            holder: holder.clone(),
            ours: ours.clone(),
        }
        .into()),
        last => Err(Away {
            destination,
            why: missed(ours, last),
        }
        .into()),
    }
}

fn missed(ours: &Holder, last: Option<&Holder>) -> String {
    match last {
        None => "it has no claim at all".to_owned(),
        Some(last) => format!(
            "our claim of epoch {} is not there, and the last one is of epoch {}, volume {}",
            ours.epoch, last.epoch, last.volume_id
        ),
    }
}

impl Lease {
    /// Of this claim of ours.
    #[must_use]
    pub fn new(claim: &Claim, store_id: Option<StoreId>) -> Self {
        Self {
            holder: claim.holder(),
            store_id,
            claim: encode(claim),
        }
    }

    /// Our claim as the store has it, where that is one that can be read.
    pub fn read_as(&mut self, store: &dyn Store, bytes: &[u8]) {
        if claims::of_bytes(store, &self.holder, bytes).is_ok() {
            bytes.clone_into(&mut self.claim);
        }
    }

    /// Whether the place is still ours.
    pub async fn check(&self, store: &dyn Store) -> Result<(), NotHeld> {
        self.check_in(store, &claims::list(store).await?).await
    }

    /// The same, from the claims of the place in order, as the store listed them.
    pub async fn check_in(&self, store: &dyn Store, claims: &[Holder]) -> Result<(), NotHeld> {
        check(store, claims, &self.holder).await
    }

    /// Looks at the place again.
    pub async fn look(&self, store: &dyn Store) -> Result<Sight, store::Error> {
        let claims = claims::list(store).await?;
        if claims.last().is_some_and(|last| *last >= self.holder) {
            return Ok(self.judge(&claims, None, None));
        }
        if claims.is_empty() {
            store.probe().await?;
        }
        let mut read = store.read_all(&[keys::STATE, keys::STORE_ID]).await?;
        let state = read
            .remove(keys::STATE)
            .and_then(|bytes| state::of_bytes(store, &bytes));
        let found = read
            .remove(keys::STORE_ID)
            .and_then(|bytes| store_id::of_bytes(store, &bytes));
        Ok(self.judge(&claims, state.as_ref(), found.as_ref()))
    }

    /// What a place is, from its claims in order, its summary and its id.
    fn judge(&self, claims: &[Holder], state: Option<&State>, found: Option<&StoreId>) -> Sight {
        let last = claims.last();
        match last {
            Some(holder) if *holder == self.holder => return Sight::Ours,
            Some(holder) if *holder > self.holder => return Sight::TakenOver(holder.clone()),
            _ => {}
        }
        let writer = state.map(|state| Holder {
            epoch: state.epoch,
            volume_id: state.volume_id.clone(),
        });
        let names_us = writer.as_ref() == Some(&self.holder);
        let is_known = match (&self.store_id, found) {
            (Some(known), Some(found)) => known == found,
            // Where nobody has ever said which store it is, the last writer's name has to do.
            (None, _) => names_us,
            (Some(_), None) => false,
        };
        let missed = missed(&self.holder, last);
        let is_later = writer.is_some_and(|writer| writer > self.holder);
        // Whatever is there came from our own volume.
        let was_ours = last.is_some_and(|last| last.volume_id == self.holder.volume_id);
        match (is_known, last) {
            (true, _) if names_us => Sight::ClaimGone,
            (true, Some(_)) if !is_later => Sight::Older(missed),
            (false, Some(_)) if was_ours && !is_later => Sight::Older(missed),
            (true, _) => Sight::Elsewhere(format!("{missed}, and nothing names us as its last writer")),
            (false, _) => Sight::Elsewhere(match (found, &self.store_id) {
                (Some(found), Some(known)) => format!("its id is {found}, and was {known}"),
                (None, _) if last.is_none() && state.is_none() => "nothing of ours is there".to_owned(),
                _ => missed,
            }),
        }
    }

    /// Writes what is known of the place again: our claim, the same bytes, and which store it is. So no rule of the bucket finds
    /// them old. Only where the place was just seen to be ours.
    pub async fn write_again(&self, store: &dyn Store) -> Result<(), store::Error> {
        self.write_claim(store).await?;
        match &self.store_id {
            Some(id) => store_id::write(store, id).await,
            None => Ok(()),
        }
    }

    /// Writes our claim again, where it is gone.
    pub async fn write_claim(&self, store: &dyn Store) -> Result<(), store::Error> {
        store.write(&self.holder.key(), &self.claim).await
    }

    /// Takes note of which store it is: the one that says so, now that the place was seen to be ours; one that does not is
    /// told.
    pub async fn identify(&mut self, store: &dyn Store, found: Option<StoreId>) -> Result<(), store::Error> {
        if found.is_some() {
            self.store_id = found;
            return Ok(());
        }
        let id = match &self.store_id {
            Some(known) => known.clone(),
            None => StoreId::random()?,
        };
        store_id::write(store, &id).await?;
        self.store_id = Some(id);
        Ok(())
    }
}

/// For tests that need no more than a name.
#[cfg(test)]
impl From<Holder> for Lease {
    fn from(holder: Holder) -> Self {
        Self {
            holder,
            store_id: None,
            claim: b"{}".to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::claims::Owner;
    use crate::store::memory::Memory;
    use crate::store::records::VERSION;
    use jiff::Timestamp;

    fn holder(epoch: u64, id: &str) -> Holder {
        Holder {
            epoch,
            volume_id: id.to_owned(),
        }
    }

    fn store_id(digit: &str) -> StoreId {
        digit.repeat(32).parse().unwrap()
    }

    /// Our lease of epoch 3, volume b.
    fn lease(known: Option<StoreId>) -> Lease {
        let claim = Claim {
            version: VERSION,
            epoch: 3,
            owner: Owner {
                cluster: "c".to_owned(),
                namespace: "n".to_owned(),
                kind: "Deployment".to_owned(),
                name: "app".to_owned(),
                pod: String::new(),
            },
            pod: "app-1".to_owned(),
            generation: String::new(),
            volumes: vec![claims::ClaimedVolume {
                name: "data".to_owned(),
                folder: "config".to_owned(),
                id: "b".to_owned(),
            }],
            time: Timestamp::UNIX_EPOCH,
            start: None,
        };
        Lease::new(&claim, known)
    }

    fn state(epoch: u64, id: &str) -> State {
        let json = format!(r#"{{"version":1,"epoch":{epoch},"volume_id":"{id}","heartbeat":"2026-11-22T13:05:00Z"}}"#);
        serde_json::from_str(&json).unwrap()
    }

    #[tokio::test]
    async fn only_a_newer_claim_fences_and_what_is_missing_is_not_believed() {
        let store = Memory::default();
        let ours = lease(None);
        let checked = async |claims: &[Holder]| ours.check_in(&store, claims).await;
        assert!(checked(&[holder(2, "x"), holder(3, "b")]).await.is_ok());
        for newer in [holder(4, "z"), holder(3, "a")] {
            let error = checked(&[holder(3, "b"), newer]).await.unwrap_err();
            assert!(matches!(error, NotHeld::Fenced(Fenced::TakenOver { .. })), "{error}");
        }
        for missing in [&[][..], &[holder(2, "x")], &[holder(3, "c")]] {
            let error = checked(missing).await.unwrap_err();
            assert!(matches!(error, NotHeld::Away(_)), "{error}");
            assert!(error.to_string().contains("answers, but is not the store"), "{error}");
        }
    }

    #[test]
    fn what_a_place_shows_tells_whether_it_is_ours() {
        let (one, other) = (store_id("1"), store_id("2"));
        // What we know; the claims, the summary's writer and the id that are there; what that is.
        for (known, claims, writer, found, expected) in [
            (Some(&one), vec![holder(3, "b")], None, None, "ours"),
            // Our claim says more than any id: whoever had the place before may have written its own.
            (Some(&one), vec![holder(3, "b")], None, Some(&other), "ours"),
            (
                Some(&one),
                vec![holder(3, "b"), holder(4, "a")],
                Some((3, "b")),
                Some(&one),
                "taken",
            ),
            // A rule of the bucket.
            (Some(&one), vec![], Some((3, "b")), Some(&one), "gone"),
            (Some(&one), vec![holder(2, "x")], Some((3, "b")), Some(&one), "gone"),
            (None, vec![], Some((3, "b")), None, "gone"),
            (None, vec![], Some((3, "b")), Some(&one), "gone"),
            // Somebody else has written since, though no claim says so.
            (Some(&one), vec![], Some((4, "a")), Some(&one), "elsewhere"),
            (
                Some(&one),
                vec![holder(2, "x")],
                Some((4, "a")),
                Some(&one),
                "elsewhere",
            ),
            // Our store, as it was.
            (Some(&one), vec![holder(2, "x")], Some((2, "x")), Some(&one), "older"),
            (Some(&one), vec![holder(2, "x")], None, Some(&one), "older"),
            (Some(&one), vec![holder(2, "b")], Some((2, "b")), Some(&other), "older"),
            (None, vec![holder(2, "b")], None, None, "older"),
            (None, vec![holder(2, "b")], Some((4, "a")), None, "elsewhere"),
            // Nobody can tell.
            (Some(&one), vec![], None, Some(&one), "elsewhere"),
            (Some(&one), vec![], Some((2, "x")), Some(&one), "elsewhere"),
            // Not mounted, or another.
            (Some(&one), vec![], None, None, "elsewhere"),
            (None, vec![], None, None, "elsewhere"),
            (Some(&one), vec![], Some((3, "b")), None, "elsewhere"),
            (Some(&one), vec![], Some((3, "b")), Some(&other), "elsewhere"),
            (
                Some(&one),
                vec![holder(2, "x")],
                Some((2, "x")),
                Some(&other),
                "elsewhere",
            ),
            (None, vec![holder(2, "x")], Some((2, "x")), None, "elsewhere"),
        ] {
            let state = writer.map(|(epoch, id)| state(epoch, id));
            let sight = lease(known.cloned()).judge(&claims, state.as_ref(), found);
            let word = match sight {
                Sight::Ours => "ours",
                Sight::TakenOver(_) => "taken",
                Sight::ClaimGone => "gone",
                Sight::Older(_) => "older",
                Sight::Elsewhere(_) => "elsewhere",
            };
            assert_eq!(word, expected, "{known:?} {claims:?} {writer:?} {found:?}");
        }
    }

    #[tokio::test]
    async fn a_claim_is_written_again_byte_by_byte() {
        let store = Memory::default();
        let mut ours = lease(Some(store_id("1")));
        let read = b"{\"version\":1,\"epoch\":3,\"owner\":{\"namespace\":\"n\",\"kind\":\"K\",\"name\":\"a\"},\"volumes\":[{\"name\":\"v\",\"folder\":\"f\",\"id\":\"b\"}],\"time\":\"2026-11-22T13:05:00Z\",\"later\":1}";
        ours.read_as(&store, read);
        // One that was cut off is none.
        ours.read_as(&store, &read[..20]);
        ours.write_again(&store).await.unwrap();
        assert_eq!(store.objects()["claims/3-b.json"], read);
        assert_eq!(store_id::read(&store).await.unwrap(), Some(store_id("1")));
        assert!(ours.check(&store).await.is_ok());
    }

    #[tokio::test]
    async fn a_place_without_an_id_gets_one_and_the_one_that_is_there_is_believed() {
        let store = Memory::default();
        let mut ours = lease(None);
        ours.identify(&store, None).await.unwrap();
        let id = ours.store_id.clone().unwrap();
        assert_eq!(store_id::read(&store).await.unwrap(), Some(id.clone()));
        // Lost, it is written again.
        store.objects().clear();
        ours.identify(&store, None).await.unwrap();
        assert_eq!(store_id::read(&store).await.unwrap(), Some(id));
        ours.identify(&store, Some(store_id("2"))).await.unwrap();
        assert_eq!(ours.store_id, Some(store_id("2")));
    }
}
