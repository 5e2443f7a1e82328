//! A password as rclone's configuration holds it → the password. rclone obscures it with a key that everybody has (AES-256 in
//! counter mode, the first block the counter), so that nobody reads it over a shoulder; it is no secret from whoever has the
//! file. rclone's own command for it takes the text as an argument, where every process of the pod could read it. Pure.

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// `fs/config/obscure` of rclone.
const KEY: [u8; 32] = [
    0x9c, 0x93, 0x5b, 0x48, 0x73, 0x0a, 0x55, 0x4d, 0x6b, 0xfd, 0x7c, 0x63, 0xc8, 0x86, 0xa9, 0x2b, 0xd3, 0x90, 0x19,
    0x8e, 0xb8, 0x12, 0x8a, 0xfb, 0xf4, 0xde, 0x16, 0x2b, 0x8b, 0x95, 0xf6, 0x38,
];
/// Bytes of a block.
const BLOCK: usize = 16;

/// The password; none where the text is not one that rclone has made.
pub(super) fn reveal(obscured: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(obscured).ok()?;
    let (counter, hidden) = bytes.split_first_chunk::<BLOCK>()?;
    let cipher = Aes256::new(&KEY.into());
    let mut counter = u128::from_be_bytes(*counter);
    let mut password = Vec::with_capacity(hidden.len());
    for block in hidden.chunks(BLOCK) {
        let mut stream = counter.to_be_bytes().into();
        cipher.encrypt_block(&mut stream);
        password.extend(block.iter().zip(stream).map(|(hidden, stream)| hidden ^ stream));
        counter = counter.wrapping_add(1);
    }
    String::from_utf8(password).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rclone_obscured_is_revealed() {
        // `rclone obscure`, 1.75.1.
        for (obscured, password) in [
            ("bSKAVIDlNmCwrJ7QcPkwdU0", "a"),
            ("WkwvlqnLiMLBCEU15PAGWiMFQmU76rwMQZ8", "$p\"a\\ss ü"),
            (
                "2Xi0b3opW78aehpJNLlnw6AXN79ZLKG6N1KTAawg-XhKmauD2J4YxHQSv8iQwarEeg",
                "0123456789abcdef0123456789abcdef!",
            ),
        ] {
            assert_eq!(reveal(obscured).as_deref(), Some(password));
        }
        for text in ["", "secret", "no base64!", "YWFhYWFhYWE"] {
            assert_eq!(reveal(text), None, "{text}");
        }
    }
}
