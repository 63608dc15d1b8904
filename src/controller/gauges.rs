//! Gauges about the state of objects. They are set with each new status and removed with their object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{IntGaugeVec, Registry};

use crate::api::status::ConditionStatus;
use crate::model::metric;

use super::index::{Kind, ObjectId};

#[derive(Clone, Debug)]
pub(super) struct ObjectGauges {
    objects: IntGaugeVec,
    object_ready: IntGaugeVec,
    object_alarm: IntGaugeVec,
    listener_ready: IntGaugeVec,
    listener_bound: IntGaugeVec,
    shown: Arc<Mutex<BTreeMap<ObjectId, Summary>>>,
}

/// The values of an object's gauges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its condition Ready.
    pub ready: Ready,
    /// The type and reason of each alarming condition except Ready.
    pub alarms: BTreeSet<(String, String)>,
    /// The listeners by their identity.
    pub listeners: BTreeMap<String, ListenerSummary>,
}

/// The values of a listener's gauges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSummary {
    /// Its condition Ready.
    pub ready: Ready,
    /// Whether its socket is bound.
    pub is_bound: bool,
}

/// The condition Ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Its status.
    pub status: ConditionStatus,
    /// Its reason.
    pub reason: String,
}

impl ObjectGauges {
    /// Registers all gauges.
    ///
    /// # Errors
    ///
    /// Fails if a metric with the same name is already registered.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let objects = metric::OBJECTS.gauges(registry)?;
        for kind in Kind::ALL {
            for status in STATUSES {
                objects.with_label_values(&[kind.name(), name(status)]).set(0);
            }
        }
        Ok(Self {
            objects,
            object_ready: metric::OBJECT_READY.gauges(registry)?,
            object_alarm: metric::OBJECT_ALARM.gauges(registry)?,
            listener_ready: metric::LISTENER_READY.gauges(registry)?,
            listener_bound: metric::LISTENER_BOUND.gauges(registry)?,
            shown: Arc::default(),
        })
    }

    /// Sets the gauges of an object; `None` removes them.
    pub(super) fn show(&self, id: &ObjectId, summary: Option<Summary>) {
        let mut shown = self.shown.lock();
        let before = match &summary {
            Some(summary) => shown.insert(id.clone(), summary.clone()),
            None => shown.remove(id),
        };
        if before == summary {
            return;
        }
        // First set the new values, then remove the old ones: a scrape in between finds no gap.
        if let Some(summary) = &summary {
            self.set(id, summary);
        }
        if let Some(before) = &before {
            self.forget(id, before, summary.as_ref());
        }
    }

    fn set(&self, id: &ObjectId, summary: &Summary) {
        let (kind, object) = (id.kind.name(), id.key.to_string());
        self.objects.with_label_values(&[kind, name(summary.ready.status)]).inc();
        let is_ready = |ready: &Ready| i64::from(ready.status == ConditionStatus::True);
        let ready = &summary.ready;
        self.object_ready.with_label_values(&[kind, &object, &ready.reason]).set(is_ready(ready));
        for (condition, reason) in &summary.alarms {
            self.object_alarm.with_label_values(&[kind, &object, condition, reason]).set(1);
        }
        for (listener, ListenerSummary { ready, is_bound }) in &summary.listeners {
            self.listener_ready.with_label_values(&[listener, &ready.reason]).set(is_ready(ready));
            self.listener_bound.with_label_values(&[listener]).set((*is_bound).into());
        }
    }

    /// Removes the values that no longer apply.
    fn forget(&self, id: &ObjectId, before: &Summary, now: Option<&Summary>) {
        let (kind, object) = (id.kind.name(), id.key.to_string());
        self.objects.with_label_values(&[kind, name(before.ready.status)]).dec();
        // The removals cannot fail: these values were set before.
        if now.is_none_or(|now| now.ready.reason != before.ready.reason) {
            let _ = self.object_ready.remove_label_values(&[kind, &object, &before.ready.reason]);
        }
        for alarm in before.alarms.iter().filter(|alarm| !now.is_some_and(|now| now.alarms.contains(alarm))) {
            let _ = self.object_alarm.remove_label_values(&[kind, &object, &alarm.0, &alarm.1]);
        }
        for (listener, ListenerSummary { ready, .. }) in &before.listeners {
            let same = now.and_then(|now| now.listeners.get(listener));
            if same.is_none_or(|same| same.ready.reason != ready.reason) {
                let _ = self.listener_ready.remove_label_values(&[listener, &ready.reason]);
            }
            if same.is_none() {
                let _ = self.listener_bound.remove_label_values(&[listener]);
            }
        }
    }
}

const STATUSES: [ConditionStatus; 3] =
    [ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown];

fn name(status: ConditionStatus) -> &'static str {
    match status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::index::Key;

    fn summary(
        status: ConditionStatus,
        reason: &str,
        alarms: &[&str],
        listeners: &[(&str, bool)],
    ) -> Summary {
        let ready = Ready { status, reason: reason.into() };
        Summary {
            ready: ready.clone(),
            alarms: alarms.iter().map(|alarm| ((*alarm).to_owned(), "Why".to_owned())).collect(),
            listeners: listeners
                .iter()
                .map(|(name, is_bound)| {
                    ((*name).to_owned(), ListenerSummary { ready: ready.clone(), is_bound: *is_bound })
                })
                .collect(),
        }
    }

    #[test]
    fn an_object_has_one_value_for_each_gauge_until_it_is_removed() {
        let registry = Registry::new();
        let gauges = ObjectGauges::register(&registry).unwrap();
        let text = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let lines = || {
            let text = text();
            let lines = text.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let id = ObjectId::new(Kind::Server, &Key::new("mail", "x"));
        let ready = summary(ConditionStatus::True, "Ready", &["Degraded"], &[("mail/x/a", true)]);
        gauges.show(&id, Some(ready.clone()));
        gauges.show(&id, Some(ready));
        assert_eq!(
            lines(),
            [
                r#"mailgress_listener_bound{listener="mail/x/a"} 1"#,
                r#"mailgress_listener_ready{listener="mail/x/a",reason="Ready"} 1"#,
                r#"mailgress_object_alarm{condition="Degraded",kind="MailServer",object="mail/x",reason="Why"} 1"#,
                r#"mailgress_object_ready{kind="MailServer",object="mail/x",reason="Ready"} 1"#,
                r#"mailgress_objects{kind="MailServer",ready="True"} 1"#,
            ]
        );
        gauges.show(&id, Some(summary(ConditionStatus::False, "BindFailed", &[], &[("mail/x/b", false)])));
        assert_eq!(lines(), [r#"mailgress_objects{kind="MailServer",ready="False"} 1"#]);
        for zero in [
            r#"mailgress_listener_ready{listener="mail/x/b",reason="BindFailed"} 0"#,
            r#"mailgress_listener_bound{listener="mail/x/b"} 0"#,
            r#"mailgress_object_ready{kind="MailServer",object="mail/x",reason="BindFailed"} 0"#,
        ] {
            assert!(text().contains(zero), "{zero} is missing in {}", text());
        }
        gauges.show(&id, None);
        assert!(lines().is_empty() && !text().contains("mail/x"), "{}", text());
    }
}
