//! A complete index, and what has changed since → the snapshot that the two make. Pure.

use super::{Entry, What};
use std::cmp::Ordering;
use std::iter::Peekable;

/// The snapshot that an index and its base make: in order, the later one winning, nothing that is gone.
pub fn merged<E>(
    base: impl Iterator<Item = Result<Entry, E>>,
    changes: impl Iterator<Item = Result<Entry, E>>,
) -> impl Iterator<Item = Result<Entry, E>> {
    let (mut base, mut changes) = (base.peekable(), changes.peekable());
    std::iter::from_fn(move || {
        loop {
            let next = later_first(&mut base, &mut changes)?;
            match next {
                Ok(entry) if entry.what == What::Gone => {}
                other => return Some(other),
            }
        }
    })
}

fn later_first<E>(
    base: &mut Peekable<impl Iterator<Item = Result<Entry, E>>>,
    changes: &mut Peekable<impl Iterator<Item = Result<Entry, E>>>,
) -> Option<Result<Entry, E>> {
    let order = match (base.peek(), changes.peek()) {
        (Some(Ok(old)), Some(Ok(new))) => old.path.cmp(&new.path),
        (Some(_), None) | (Some(Err(_)), _) => Ordering::Less,
        (_, _) => Ordering::Greater,
    };
    match order {
        Ordering::Less => base.next(),
        Ordering::Equal => {
            base.next();
            changes.next()
        }
        Ordering::Greater => changes.next(),
    }
}
