//! The command line's side of the API: one request, one answer, one connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::error::ErrorAnswer;
use crate::server_json::ServerJson;

/// A running server and its token.
pub struct Client {
    address: SocketAddr,
    token: String,
    /// The longest wait for a piece of an answer.
    wait: Duration,
}

impl Client {
    /// The server of this data directory, if one runs: `server.json` may have been left by one that was killed.
    #[must_use]
    pub fn of_running(data_dir: &Path) -> Option<Self> {
        Self::of_running_within(data_dir, ANSWER)
    }

    /// The same for somebody who cannot wait long.
    #[must_use]
    pub fn of_running_within(data_dir: &Path, wait: Duration) -> Option<Self> {
        let info = ServerJson::read(data_dir)?;
        let address = info.http.parse().ok()?;
        let client = Self {
            address: reachable(address),
            token: info.token,
            wait,
        };
        let is_ours = client
            .get::<crate::api::SelfAnswer>("/api/v1/self")
            .is_ok_and(|found| found.pid == info.pid);
        is_ours.then_some(client)
    }

    /// An address that logs whoever opens it in, once.
    pub fn link(&self) -> anyhow::Result<String> {
        let link: crate::api::Link = self.post("/api/v1/links", &serde_json::json!({}))?;
        Ok(link.url)
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask("GET", path, &[])
    }

    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.ask("POST", path, &serde_json::to_vec(body)?)
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<T> {
        let (status, body) = self
            .exchange(method, path, body)
            .context("the server does not answer")?;
        if !(200..300).contains(&status) {
            match serde_json::from_slice::<ErrorAnswer>(&body) {
                Ok(answer) => bail!("{}", answer.error.message),
                Err(_) => bail!("the server answers with status {status}"),
            }
        }
        serde_json::from_slice(&body).context("the server's answer cannot be read")
    }

    fn exchange(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect_timeout(&self.address, CONNECT.min(self.wait))?;
        stream.set_read_timeout(Some(NOTICE.min(self.wait)))?;
        stream.set_write_timeout(Some(self.wait))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            self.token,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let answer = self.read_all(&mut stream.take(MAX_ANSWER))?;
        let end = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .context("no answer")?;
        let head = std::str::from_utf8(&answer[..end])?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .context("no status")?;
        let length = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length: usize = length
            .filter_map(|(_, value)| value.trim().parse().ok())
            .next()
            .unwrap_or(0);
        let body = answer
            .get(end + 4..end + 4 + length)
            .context("the answer is cut")?;
        Ok((status, body.to_vec()))
    }

    /// Reads to the end. Who waits for long is told for what.
    fn read_all(&self, stream: &mut impl Read) -> io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        let mut piece = vec![0; 64 << 10];
        let mut since = Instant::now();
        let mut is_told = false;
        loop {
            match stream.read(&mut piece) {
                Ok(0) => return Ok(answer),
                Ok(length) => {
                    answer.extend_from_slice(&piece[..length]);
                    since = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Which of the two it is differs by system.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) && since.elapsed() < self.wait =>
                {
                    if !is_told {
                        is_told = true;
                        crate::log::line(&format!(
                            "waiting for the server at {} to answer",
                            self.address
                        ));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}

/// Percent-encodes a value for a path or a query.
#[must_use]
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

const CONNECT: Duration = Duration::from_secs(2);
/// After which time somebody who waits is told so.
const NOTICE: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(60);
const MAX_ANSWER: u64 = 512 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Client::of_running(dir.path()).is_none());
    }

    #[test]
    fn a_server_that_does_not_answer_is_waited_for_no_longer_than_asked() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client {
            address: listener.local_addr().unwrap(),
            token: String::new(),
            wait: Duration::from_millis(300),
        };
        let begun = Instant::now();
        assert!(client.exchange("GET", "/", &[]).is_err());
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn values_are_safe_in_an_address() {
        assert_eq!(
            encode("GET /o/<int:id>&x=가"),
            "GET%20%2Fo%2F%3Cint%3Aid%3E%26x%3D%EA%B0%80"
        );
    }
}
