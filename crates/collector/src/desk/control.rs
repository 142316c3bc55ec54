//! Answers for the doctor and the stop program.

use crate::run::Collector;
use whatap_wire::Message;
use whatap_wire::message::MAX_BYTES;

impl Collector {
    pub(super) fn status(&self) -> Message {
        let state = self.back.status();
        Message::new("ok")
            .with("version", whatap_conf::VERSION)
            .with("pid", std::process::id())
            .with("watch_pid", self.desk.watch_pid)
            .with("home", self.home.display())
            .with(
                "clients",
                self.desk
                    .registrations
                    .values()
                    .filter(|known| known.life.is_some())
                    .count(),
            )
            .with("rings", self.rings.len())
            .with("spool_bytes", state.spool_bytes)
            .with("server", state.server)
            .with("state", state.state)
            .with("state_text", state.text)
            .with("server_url", self.server_url())
    }

    /// The dashboard's address, as far as we know it: the local server writes it down.
    fn server_url(&self) -> String {
        let own = &self.launches.own().resolved;
        let file = own.local_server_data_dir().join("server.json");
        let text = own.is_local().then(|| std::fs::read(file).ok()).flatten();
        let json: Option<serde_json::Value> =
            text.and_then(|text| serde_json::from_slice(&text).ok());
        json.and_then(|json| Some(json.get("url")?.as_str()?.to_owned()))
            .unwrap_or_default()
    }

    pub(super) fn options(&self) -> Message {
        let mut message = Message::new("ok");
        let mut bytes = 0;
        for (option, value, source) in self.launches.own().resolved.all() {
            let value = if option.secret && !value.is_empty() {
                "(set)"
            } else {
                value
            };
            let source = format!("{source}");
            // Escaping makes three bytes of one at most.
            bytes += 2 * option.name.len() + 3 * (value.len() + source.len()) + 16;
            if bytes > MAX_BYTES {
                break;
            }
            message.push(option.name, value);
            message.push(&format!("{}.source", option.name), source);
        }
        message
    }

    /// Everything goes, and the connection closes when the holder has ended.
    pub(super) fn stop(&mut self, id: u64, message: &Message) {
        self.desk.answer(id, &Message::new("ok"));
        self.journal.line("asked to stop");
        match self.desk.connections.remove(&id) {
            Some(connection) if self.desk.has_watchdog() => {
                let timeout = message.number("timeout_ms").unwrap_or(10_000);
                self.desk.tell(
                    Message::new("stop").with("timeout_ms", timeout),
                    Some(connection.fd),
                );
            }
            _ => self.start_leaving(true, 0),
        }
    }
}
