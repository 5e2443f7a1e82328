//! PURE: never cause a rollout (design, decision 4). When neither the app nor its policy changed, the block that runs is
//! kept byte for byte, whatever release wrote it; what only companions feel updates the marker alone.

use super::insert::{set_settings, write_marker};
use super::marker::Marker;
use super::strip::strip;
use super::{Pass, intent};
use crate::policy::{Installation, Intent};
use crate::workload::{Ownership, Setting, TEMPLATE, at};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The object as it is stored, injected.
pub(super) struct Before<'a> {
    pub(super) object: &'a Value,
    pub(super) marker: &'a Marker,
}

impl Before<'_> {
    /// The new object with the old block, where nothing changed that a pod would feel.
    pub(super) fn kept(&self, pass: &Pass, namespace: &str, installation: &Installation) -> Option<Value> {
        let (policy, draft) = pass.drafted.as_ref()?;
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
        let ownership = super::ownership(self.object, Some(self.marker), Ownership::recorded(self.object));
        let stripped = strip(self.object.clone(), Some(self.marker), &ownership);
        if !is_same(at(&stripped, TEMPLATE)?, at(&pass.stripped, TEMPLATE)?) {
            return None;
        }
        let mut kept = pass.stripped.clone();
        kept["spec"]["template"] = at(self.object, TEMPLATE)?.clone();
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
        changed(&mut marker, "schedule", Value::from(draft.plan.schedule.clone()));
        if &marker == self.marker {
            let text = crate::workload::annotations(self.object, "").get(crate::policy::key::INJECTED)?;
            kept["metadata"]["annotations"][crate::policy::key::INJECTED] = text.clone();
        } else {
            write_marker(&mut kept, marker.text()).ok()?;
        }
        Some(kept)
    }
}

/// Whether two values are the same but for what the API server drops: `null`, and empty lists and maps.
pub(super) fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let count = |entries: &Map<String, Value>| entries.values().filter(|value| !is_nothing(value)).count();
            let has_same =
                |(name, value): (&String, &Value)| other.get(name).is_some_and(|other| is_same(value, other));
            count(one) == count(other) && one.iter().filter(|(_, value)| !is_nothing(value)).all(has_same)
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        _ => one == other || (is_nothing(one) && is_nothing(other)),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.values().all(is_nothing),
        _ => false,
    }
}
