//! Who sent a group of spans, records or points.

use std::collections::HashMap;

use whatap_wire::otlp::{KeyValue, Resource as OtlpResource};

use super::values::{cut, small, text};
use crate::model::{ModelBatch, Resource};

/// The senders of one request, each once: a collector puts one record after another under the same resource.
#[derive(Default)]
pub(super) struct Resources {
    index: HashMap<Resource, u32>,
}

/// One sender: its row, and whether it is our own collector.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub index: u32,
    pub ours: bool,
}

impl Resources {
    pub(super) fn add(
        &mut self,
        batch: &mut ModelBatch,
        project: u32,
        resource: Option<OtlpResource>,
    ) -> Sender {
        let (row, ours) = read(project, resource.map(|r| r.attributes).unwrap_or_default());
        let next = u32::try_from(batch.resources.len()).unwrap_or(u32::MAX);
        let index = *self.index.entry(row).or_insert_with_key(|row| {
            batch.resources.push(row.clone());
            next
        });
        Sender { index, ours }
    }
}

fn read(project: u32, attributes: Vec<KeyValue>) -> (Resource, bool) {
    let mut service = String::new();
    let mut namespace = String::new();
    let mut row = Resource {
        project,
        ..Resource::default()
    };
    let (mut runtime, mut runtime_version) = (String::new(), String::new());
    let (mut sdk, mut language, mut sdk_version) = (String::new(), String::new(), String::new());
    for KeyValue { key, value } in attributes {
        match key.as_str() {
            "service.name" => service = text(value),
            "service.namespace" => namespace = text(value),
            "service.instance.id" => row.instance = text(value),
            "host.name" => row.host = text(value),
            "process.pid" => row.pid = small(value.as_ref()),
            "process.runtime.name" => runtime = text(value),
            "process.runtime.version" => runtime_version = text(value),
            "telemetry.sdk.name" => sdk = text(value),
            "telemetry.sdk.language" => language = text(value),
            "telemetry.sdk.version" => sdk_version = text(value),
            _ => {}
        }
    }
    let ours = sdk == "whatap";
    let agent = if ours {
        sdk
    } else {
        joined(&sdk, &language, "/")
    };
    row.service = match (service.is_empty(), namespace.is_empty()) {
        (true, _) => "unknown_service".to_owned(),
        (false, true) => service,
        (false, false) => format!("{namespace}/{service}"),
    };
    row.service = cut(row.service, MAX_NAME);
    if row.instance.is_empty() {
        row.instance = match (row.host.is_empty(), row.pid) {
            (true, 0) => row.service.clone(),
            (true, pid) => format!("{}-{pid}", row.service),
            (false, 0) => row.host.clone(),
            (false, pid) => format!("{}-{pid}", row.host),
        };
    }
    row.instance = cut(row.instance, MAX_NAME);
    row.host = cut(row.host, MAX_NAME);
    row.runtime = cut(joined(&runtime, &runtime_version, " "), MAX_NAME);
    row.agent = cut(joined(&agent, &sdk_version, " "), MAX_NAME);
    (row, ours)
}

fn joined(a: &str, b: &str, separator: &str) -> String {
    match (a.is_empty(), b.is_empty()) {
        (false, false) => format!("{a}{separator}{b}"),
        _ => format!("{a}{b}"),
    }
}

const MAX_NAME: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(pairs: &[(&str, &str)]) -> Option<OtlpResource> {
        let attributes = pairs
            .iter()
            .map(|(key, value)| KeyValue::new(*key, *value))
            .collect();
        Some(OtlpResource {
            attributes,
            ..OtlpResource::default()
        })
    }

    #[test]
    fn the_same_sender_is_one_row() {
        let (mut batch, mut resources) = (ModelBatch::default(), Resources::default());
        let shop = || {
            resource(&[
                ("service.name", "shop"),
                ("telemetry.sdk.name", "whatap"),
                ("process.pid", "7"),
            ])
        };
        let first = resources.add(&mut batch, 1, shop());
        let other = resources.add(&mut batch, 1, resource(&[("service.name", "stock")]));
        let again = resources.add(&mut batch, 1, shop());
        assert_eq!((first.index, other.index, again.index), (0, 1, 0));
        assert!(first.ours && !other.ours);
        assert_eq!(batch.resources[0].pid, 7);
        assert_eq!(batch.resources[0].instance, "shop-7");
    }

    #[test]
    fn an_sdk_that_says_nothing_still_has_a_name() {
        let mut batch = ModelBatch::default();
        Resources::default().add(&mut batch, 3, None);
        assert_eq!(batch.resources[0].service, "unknown_service");
        assert_eq!(batch.resources[0].project, 3);
    }
}
