//! PURE: a text → a number that tells it from others: the first 64 bits of its SHA-256. Names and values that are stored
//! are made from it, so it stays what it is.

use sha2::{Digest, Sha256};

/// The first 64 bits of a text's SHA-256; its upper half is the first 32.
#[must_use]
pub fn fingerprint(text: &str) -> u64 {
    Sha256::digest(text)
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_beginning_of_the_digest() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(fingerprint("abc"), 0xba78_16bf_8f01_cfea);
    }
}
