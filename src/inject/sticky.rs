//! PURE: never cause a rollout (design, decision 4). When neither the app nor its policy changed, the block that runs is
//! kept byte for byte, whatever release wrote it; what only companions feel updates the marker alone.

use super::insert::{set_settings, write_marker};
use super::marker::Marker;
use super::strip::strip;
use super::{Found, Pass, intent};
use crate::policy::{Installation, Intent, Policy};
use crate::workload::{Ownership, Setting, TEMPLATE};
use serde_json::Value;
use std::collections::BTreeMap;

/// The object as it is stored, injected.
pub(super) struct Before<'a> {
    pub(super) object: &'a Value,
    pub(super) marker: &'a Marker,
}

impl Before<'_> {
    /// The new object with the old block, where nothing changed that a pod would feel.
    pub(super) fn kept(
        &self,
        policy: &Policy,
        pass: &Pass,
        namespace: &str,
        installation: &Installation,
    ) -> Option<Value> {
        let Ok((Intent::Protect(old_policy), _)) = intent(self.object, namespace, installation) else {
            return None;
        };
        if old_policy.without_companions() != policy.without_companions() {
            return None;
        }
        let settings = self.marker.settings();
        // The owner wrote what lies inside the template: keeping ours would write over it.
        if settings.contains_key(&Setting::GracePeriod) && pass.ownership.owns(Setting::GracePeriod) {
            return None;
        }
        let stripped = strip(self.object, Some(self.marker), &Ownership::recorded(self.object));
        let template = |object: &Value| object.pointer(TEMPLATE).map(normal);
        if template(&stripped)? != template(&pass.stripped)? {
            return None;
        }
        let mut kept = pass.stripped.clone();
        kept["spec"]["template"] = self.object.pointer(TEMPLATE)?.clone();
        let mut marker = self.marker.clone();
        let free: BTreeMap<Setting, Value> = settings
            .into_iter()
            .filter(|(setting, _)| *setting == Setting::GracePeriod || !pass.ownership.owns(*setting))
            .collect();
        let outside: BTreeMap<Setting, Value> = free
            .iter()
            .filter(|(setting, _)| **setting != Setting::GracePeriod)
            .map(|(setting, value)| (*setting, value.clone()))
            .collect();
        for setting in Setting::ALL {
            if !free.contains_key(&setting) {
                marker.from.remove(setting.path());
            }
        }
        set_settings(&mut kept, &outside, &mut marker.from);
        let changed = |marker: &mut Marker, name: &str, value: Value| {
            if marker.plan.get(name) != Some(&value) {
                marker.plan.insert(name.to_owned(), value);
            }
        };
        if !self.marker.settings().is_empty() {
            changed(&mut marker, "settings", serde_json::to_value(&free).ok()?);
        }
        // Companions follow the marker; what they alone feel is today's.
        if let Some(today) = Found::read(&pass.result)
            .known()
            .and_then(|marker| marker.plan.get("schedule").cloned())
        {
            changed(&mut marker, "schedule", today);
        }
        if &marker == self.marker {
            let text = crate::workload::annotations(self.object, "").get(crate::policy::key::INJECTED)?;
            kept["metadata"]["annotations"][crate::policy::key::INJECTED] = text.clone();
        } else {
            write_marker(&mut kept, &marker).ok()?;
        }
        Some(kept)
    }
}

/// A value without what the API server drops: `null`, and empty lists and maps.
fn normal(value: &Value) -> Value {
    match value {
        Value::Object(entries) => Value::Object(
            entries
                .iter()
                .map(|(name, value)| (name.clone(), normal(value)))
                .filter(|(_, value)| !is_nothing(value))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(normal).collect()),
        other => other.clone(),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}
