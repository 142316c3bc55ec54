//! The recorded answers in `tests/api`, which the dashboard's tests read too: exactly what the Rust types write, and what
//! the OpenAPI description promises.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use whatap_server::active::Active;
use whatap_server::answers::{
    Hitmap, Lost, Meters, Profile, Service, Statistics, Trace, TransactionList,
};
use whatap_server::api::error::ErrorAnswer;
use whatap_server::api::openapi::DOCUMENT;
use whatap_server::api::{Count, Frame, Link, ProjectAnswer, SelfAnswer};
use whatap_server::intake::proof::HelloAnswer;

#[path = "common/schema.rs"]
mod schema;

/// File, schema, and how the Rust type writes it again.
type Example = (&'static str, &'static str, fn(&str) -> Value);

const EXAMPLES: &[Example] = &[
    ("active", "Active", again::<Active>),
    ("active_unavailable", "Active", again::<Active>),
    ("count", "Count", again::<Count>),
    ("error", "Error", again::<ErrorAnswer>),
    ("frame", "Frame", again::<Frame>),
    ("hello", "Hello", again::<HelloAnswer>),
    ("hitmap", "Hitmap", again::<Hitmap>),
    ("link", "Link", again::<Link>),
    ("lost", "Lost", again::<Lost>),
    ("meters", "Meters", again::<Meters>),
    ("projects", "Project[]", again::<Vec<ProjectAnswer>>),
    ("self", "Self", again::<SelfAnswer>),
    ("services", "Service[]", again::<Vec<Service>>),
    ("statistics_error", "Statistics", again::<Statistics>),
    ("statistics_http", "Statistics", again::<Statistics>),
    ("statistics_sql", "Statistics", again::<Statistics>),
    ("statistics_transaction", "Statistics", again::<Statistics>),
    ("trace", "Trace", again::<Trace>),
    ("transaction", "Profile", again::<Profile>),
    ("transaction_error", "Profile", again::<Profile>),
    ("transactions", "TransactionList", again::<TransactionList>),
    ("unauthorized", "Error", again::<ErrorAnswer>),
];

fn again<T: Serialize + DeserializeOwned>(text: &str) -> Value {
    let typed: T = serde_json::from_str(text).expect("an answer of this type");
    serde_json::to_value(typed).expect("JSON")
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/api")
}

#[test]
fn every_example_is_what_the_types_write() {
    for (name, _, again) in EXAMPLES {
        let text = fs::read_to_string(directory().join(format!("{name}.json"))).expect(name);
        let recorded: Value = serde_json::from_str(&text).expect(name);
        assert_eq!(recorded, again(&text), "{name}.json");
    }
}

#[test]
fn every_example_is_what_the_description_promises() {
    let document: Value = serde_json::from_str(DOCUMENT).expect("openapi.json");
    for (name, schema, _) in EXAMPLES {
        let text = fs::read_to_string(directory().join(format!("{name}.json"))).expect(name);
        let value = serde_json::from_str(&text).expect(name);
        schema::check(&document, schema, &value, name);
    }
}

#[test]
fn every_file_is_an_example() {
    for entry in fs::read_dir(directory()).expect("tests/api") {
        let name = entry
            .expect("entry")
            .file_name()
            .into_string()
            .expect("name");
        let known = EXAMPLES
            .iter()
            .any(|(known, _, _)| name == format!("{known}.json"));
        assert!(known, "{name} is not tested");
    }
}
