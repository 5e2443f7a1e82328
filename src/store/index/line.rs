//! One entry ↔ its line of an index. Pure.

use super::{Attributes, Entry, File, HoldId, Standing, What};
use crate::store::keys::hex;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeTuple, Serializer};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// Raw bytes in JSON: text where they are UTF-8.
pub(super) struct Raw<'a>(pub(super) Cow<'a, [u8]>);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(&self.0) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("hex", &hex(&self.0))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Raw<'static> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;

        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, or an object with hex")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
                Ok(text.as_bytes().to_vec())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<u8>, A::Error> {
                match map.next_entry::<String, String>()? {
                    Some((key, digits)) if key == "hex" => {
                        unhex(&digits).ok_or_else(|| A::Error::custom("no hexadecimal digits"))
                    }
                    _ => Err(A::Error::custom("an object without hex")),
                }
            }
        }

        deserializer
            .deserialize_any(RawVisitor)
            .map(|bytes| Self(Cow::Owned(bytes)))
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let value = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    };
    (digits.len().is_multiple_of(2)).then_some(())?;
    digits
        .chunks_exact(2)
        .map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?))
        .collect()
}

/// What few files need.
#[derive(Default, Serialize, Deserialize)]
struct Extras {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    torn: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<HoldId>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    excluded: bool,
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let path = Raw(Cow::Borrowed(&self.path));
        match &self.what {
            What::File(file) => {
                let extras = Extras {
                    name: file.name.clone(),
                    torn: file.torn,
                    held: match self.standing {
                        Standing::Held(id) => Some(id),
                        Standing::Live | Standing::Excluded => None,
                    },
                    excluded: self.standing == Standing::Excluded,
                };
                let has_extras = extras.name.is_some() || extras.torn || !self.standing.is_live();
                let mut line = serializer.serialize_tuple(9 + usize::from(has_extras))?;
                line.serialize_element("f")?;
                line.serialize_element(&path)?;
                line.serialize_element(&file.size)?;
                write_attributes::<S>(&mut line, &file.attributes)?;
                line.serialize_element(&format!("{:o}", file.attributes.mode))?;
                line.serialize_element(&hex(&file.sha256))?;
                line.serialize_element(&file.stored)?;
                if has_extras {
                    line.serialize_element(&extras)?;
                }
                line.end()
            }
            What::Folder(attributes) => {
                let mut line = serializer.serialize_tuple(6)?;
                line.serialize_element("d")?;
                line.serialize_element(&path)?;
                write_attributes::<S>(&mut line, attributes)?;
                line.serialize_element(&format!("{:o}", attributes.mode))?;
                line.end()
            }
            What::Link(target, attributes) => {
                let mut line = serializer.serialize_tuple(6)?;
                line.serialize_element("l")?;
                line.serialize_element(&path)?;
                line.serialize_element(&Raw(Cow::Borrowed(target)))?;
                write_attributes::<S>(&mut line, attributes)?;
                line.end()
            }
            What::Gone => ("x", path).serialize(serializer),
        }
    }
}

fn write_attributes<S: Serializer>(line: &mut S::SerializeTuple, attributes: &Attributes) -> Result<(), S::Error> {
    line.serialize_element(&attributes.modified)?;
    line.serialize_element(&attributes.uid)?;
    line.serialize_element(&attributes.gid)
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;

        fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(line: &mut A) -> Result<T, A::Error> {
            line.next_element()?
                .ok_or_else(|| A::Error::custom("the entry is too short"))
        }

        fn attributes<'de, A: SeqAccess<'de>>(line: &mut A) -> Result<Attributes, A::Error> {
            Ok(Attributes {
                modified: next(line)?,
                uid: next(line)?,
                gid: next(line)?,
                mode: 0,
            })
        }

        fn mode<'de, A: SeqAccess<'de>>(line: &mut A) -> Result<u32, A::Error> {
            let digits: Cow<'de, str> = next(line)?;
            u32::from_str_radix(&digits, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777)
                .ok_or_else(|| A::Error::custom("a mode is four octal digits"))
        }

        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an entry")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut line: A) -> Result<Entry, A::Error> {
                let line = &mut line;
                let kind: Cow<'de, str> = next(line)?;
                let Raw(path) = next(line)?;
                let path = path.into_owned();
                let mut standing = Standing::Live;
                let what = match kind.as_ref() {
                    "f" => {
                        let size = next(line)?;
                        let mut attributes = attributes(line)?;
                        attributes.mode = mode(line)?;
                        let digits: Cow<'de, str> = next(line)?;
                        let sha256 = unhex(&digits)
                            .and_then(|bytes| bytes.try_into().ok())
                            .ok_or_else(|| A::Error::custom("a SHA-256 is 64 hexadecimal digits"))?;
                        let stored = next(line)?;
                        let Extras {
                            name,
                            torn,
                            held,
                            excluded,
                        } = line.next_element()?.unwrap_or_default();
                        standing = match held {
                            Some(id) => Standing::Held(id),
                            None if excluded => Standing::Excluded,
                            None => Standing::Live,
                        };
                        What::File(File {
                            size,
                            sha256,
                            attributes,
                            stored,
                            name,
                            torn,
                        })
                    }
                    "d" => {
                        let mut attributes = attributes(line)?;
                        attributes.mode = mode(line)?;
                        What::Folder(attributes)
                    }
                    "l" => {
                        let Raw(target) = next(line)?;
                        What::Link(target.into_owned(), attributes(line)?)
                    }
                    "x" => What::Gone,
                    other => return Err(A::Error::custom(format!("an entry of the unknown kind {other:?}"))),
                };
                if line.next_element::<IgnoredAny>()?.is_some() {
                    return Err(A::Error::custom("the entry is too long"));
                }
                check_path(&path, matches!(what, What::Folder(_)), matches!(what, What::Gone))
                    .map_err(A::Error::custom)?;
                Ok(Entry { path, what, standing })
            }
        }

        deserializer.deserialize_seq(EntryVisitor)
    }
}

/// A path from the store must not lead out of its volume.
fn check_path(path: &[u8], is_folder: bool, is_gone: bool) -> Result<(), &'static str> {
    let (trimmed, slash) = match path.strip_suffix(b"/") {
        Some(trimmed) => (trimmed, true),
        None => (path, false),
    };
    if !is_gone && slash != is_folder {
        return Err("a folder's path ends with a slash, and no other");
    }
    if trimmed.contains(&0) {
        return Err("a path holds a NUL byte");
    }
    if trimmed
        .split(|byte| *byte == b'/')
        .any(|part| part.is_empty() || part == b"." || part == b"..")
    {
        return Err("a path leads out of its volume");
    }
    if !slash && !trimmed.contains(&b'/') {
        return Err("a path lies outside every volume");
    }
    Ok(())
}
