//! PURE: a manifest that came with its block, as `inject` has rendered it for Argo CD → the same with the cluster's id.
//! What an applier owns is not changed (design, decision 3), and its image is the applier's to say: else the two would
//! write over each other for as long as the plugin and the webhook are of two releases.

use super::Pass;
use super::block::CLUSTER_ID;
use super::insert::insert;
use super::marker::Marker;
use super::plan::Plan;
use super::sticky::is_same;
use super::strip::is_our_container;
use crate::policy::Installation;
use crate::workload::{POD, Setting, TEMPLATE, at, at_mut, list};
use serde_json::Value;
use std::borrow::Cow;

const STRATEGY_TYPE: &str = "/spec/strategy/type";
const ROLLING_UPDATE: &str = "/spec/strategy/rollingUpdate";

/// The object as it is to be stored, where it was rendered for today's policy.
pub(super) fn rendered(object: &Value, marker: &Marker, pass: &Pass, installation: &Installation) -> Option<Value> {
    if !pass.ownership.is_rendered() && (installation.cluster_id.is_none() || knows_its_cluster(object)) {
        return None;
    }
    let (_, draft) = pass.drafted.as_ref()?;
    let plan = marker.plan()?;
    let asked_for = Plan {
        image: plan.image.clone(),
        ..draft.plan.clone()
    };
    if plan != asked_for {
        return None;
    }
    let with = |cluster_id| insert(pass.stripped.clone(), &plan, &draft.position, cluster_id).ok();
    let stored = with(installation.cluster_id.as_deref())?;
    let is_whole = |expected: &Value| match (at(expected, TEMPLATE), at(object, TEMPLATE)) {
        (Some(expected), Some(found)) => is_same(expected, found),
        _ => false,
    };
    (is_whole(&stored) || is_whole(&with(None)?)).then_some(stored)
}

/// The object without what a server-side apply leaves of a defaulted strategy beside the one that we have rendered: nobody
/// owns it, so nobody removes it, and together they are invalid.
pub(super) fn without_remains<'a>(object: &'a Value, marker: &Marker) -> Cow<'a, Value> {
    let ours = marker.settings().remove(&Setting::Strategy);
    let is_ours = ours.is_some_and(|ours| at(object, STRATEGY_TYPE) == ours.get("type"));
    if !is_ours || at(object, ROLLING_UPDATE).is_none() {
        return Cow::Borrowed(object);
    }
    let mut object = object.clone();
    if let Some(strategy) = at_mut(&mut object, Setting::Strategy.path()).and_then(Value::as_object_mut) {
        strategy.shift_remove("rollingUpdate");
    }
    Cow::Owned(object)
}

/// Whether what is injected was completed by a webhook before.
fn knows_its_cluster(object: &Value) -> bool {
    let containers = list(object, &format!("{POD}/initContainers"));
    containers
        .iter()
        .filter(|container| is_our_container(container))
        .any(|container| {
            let variables = list(container, "/env");
            variables.iter().any(|variable| variable["name"] == CLUSTER_ID)
        })
}
