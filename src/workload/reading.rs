//! PURE: an object as the API server sends it → the object without what nobody here asks for: `status`, and all of
//! `metadata.managedFields` but the entries that [`super::Ownership`] looks at. In a review of a change these are about
//! half of the bytes, twice. Nothing of ours is ever written there, so that a patch is the same with and without them.

use super::ownership::ASKED_FIELDS;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Reads an object, or `null`. For `#[serde(deserialize_with)]`.
pub fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    deserializer.deserialize_option(Nullable)
}

struct Nullable;

impl<'de> Visitor<'de> for Nullable {
    type Value = Option<Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of Kubernetes, or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        Part::Object.deserialize(deserializer).map(Some)
    }
}

/// Where in an object we are.
#[derive(Clone, Copy)]
enum Part {
    Object,
    Metadata,
    ManagedFields,
    ManagedFieldsEntry,
    /// Below `fieldsV1`.
    Fields,
    /// Kept as it is.
    Whole,
}

impl Part {
    /// What lies below a key; nothing where it is not kept.
    fn below(self, key: &str) -> Option<Self> {
        match self {
            Self::Object if key == "metadata" => Some(Self::Metadata),
            Self::Object => (key != "status").then_some(Self::Whole),
            Self::Metadata if key == "managedFields" => Some(Self::ManagedFields),
            Self::ManagedFieldsEntry if key == "fieldsV1" => Some(Self::Fields),
            Self::ManagedFieldsEntry => matches!(key, "operation" | "subresource").then_some(Self::Whole),
            Self::ManagedFields => None,
            Self::Fields => {
                let is_asked = key.strip_prefix("f:").is_some_and(|name| ASKED_FIELDS.contains(&name));
                is_asked.then_some(Self::Fields)
            }
            Self::Metadata | Self::Whole => Some(Self::Whole),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Part {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Self::Whole => serde::Deserialize::deserialize(deserializer),
            Self::Object => deserializer.deserialize_map(self),
            Self::Metadata | Self::ManagedFields | Self::ManagedFieldsEntry | Self::Fields => {
                deserializer.deserialize_any(self)
            }
        }
    }
}

impl<'de> Visitor<'de> for Part {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of Kubernetes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            match self.below(&key) {
                Some(part) => {
                    entries.insert(key, access.next_value_seed(part)?);
                }
                None => {
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value::Object(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let below = match self {
            Self::ManagedFields => Self::ManagedFieldsEntry,
            other => other,
        };
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(below)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Ownership;
    use serde_json::json;

    fn read(value: &Value) -> Result<Option<Value>, serde_json::Error> {
        object(&mut serde_json::Deserializer::from_str(&value.to_string()))
    }

    #[test]
    fn what_is_asked_is_kept_and_the_rest_of_an_object_is_as_it_was() {
        let whole = json!({
            "kind": "Deployment",
            "metadata": {
                "name": "app",
                "labels": {"status": "kept", "managedFields": "kept"},
                "managedFields": [{
                    "manager": "kubectl", "operation": "Apply", "time": "2026-11-22T13:05:00Z",
                    "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:spec": {"f:replicas": {}, "f:strategy": {"f:type": {}}, "f:template": {"f:spec": {
                        "f:containers": {"k:{\"name\":\"app\"}": {".": {}, "f:image": {}}},
                        "f:terminationGracePeriodSeconds": {},
                    }}}},
                }, {"operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {"f:replicas": {}}}}],
            },
            "spec": {"replicas": 1, "template": {"status": [1, null, 2.5]}},
            "status": {"replicas": 1},
        });
        let read = read(&whole).unwrap().unwrap();
        assert_eq!(Ownership::recorded(&read), Ownership::recorded(&whole));
        let mut expected = whole;
        expected["metadata"]["managedFields"] = json!([
            {"operation": "Apply", "fieldsV1": {"f:spec": {"f:strategy": {}, "f:template": {"f:spec": {
                "f:terminationGracePeriodSeconds": {},
            }}}}},
            {"operation": "Update", "subresource": "status", "fieldsV1": {}},
        ]);
        expected.as_object_mut().unwrap().shift_remove("status");
        assert_eq!(read, expected);
    }

    #[test]
    fn every_path_that_is_asked_for_is_kept() {
        let paths = crate::workload::Setting::ALL.map(crate::workload::Setting::path);
        let parts = paths.iter().flat_map(|path| path.split('/').skip(1));
        for part in parts.chain([crate::policy::key::INJECTED]) {
            assert!(ASKED_FIELDS.contains(&part), "{part}");
        }
    }

    #[test]
    fn null_is_no_object_and_anything_else_is_an_error() {
        assert_eq!(read(&Value::Null).unwrap(), None);
        assert_eq!(
            read(&json!({"metadata": null})).unwrap(),
            Some(json!({"metadata": null}))
        );
        for wrong in [json!([]), json!("text"), json!({"metadata": "text"}), json!(7)] {
            let error = read(&wrong).unwrap_err().to_string();
            assert!(error.contains("expected an object of Kubernetes"), "{error}");
        }
    }
}
