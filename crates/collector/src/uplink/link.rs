//! One connection to a server, and how requests look on it.

use super::http::{Address, Answer, Connection, Fault};
use crate::spool::{Batch, Signal};
use std::io::{self, Read};
use std::time::Duration;

/// A server that has shown what it is.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) address: Address,
    /// In front of `/v1/traces`.
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) encoding: Encoding,
    /// It knows spools and running transactions.
    pub(super) is_ours: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// On this host a byte costs less than its compression.
    Plain,
    Gzip,
    Zstd,
}

impl Link {
    pub(super) fn post(
        &mut self,
        signal: Signal,
        body: &[u8],
        batch: Option<&Batch>,
        patience: Duration,
    ) -> Result<Answer, Fault> {
        let path = match signal {
            Signal::Traces => format!("{}/v1/traces", self.path),
            Signal::Metrics => format!("{}/v1/metrics", self.path),
            Signal::Logs => format!("{}/v1/logs", self.path),
        };
        let (spool, number);
        let mut headers: Vec<(&str, &str)> = vec![
            ("Content-Type", "application/x-protobuf"),
            ("User-Agent", concat!("whatap/", env!("CARGO_PKG_VERSION"))),
        ];
        headers.extend(
            self.headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        if let Some(batch) = batch.filter(|_| self.is_ours) {
            spool = format!("{:016x}", batch.spool);
            number = batch.number.to_string();
            headers.extend([
                ("X-Whatap-Spool", spool.as_str()),
                ("X-Whatap-Batch", number.as_str()),
            ]);
        }
        let packed;
        let body = match self.encoding.pack(body)? {
            None => body,
            Some((name, bytes)) => {
                headers.push(("Content-Encoding", name));
                packed = bytes;
                &packed
            }
        };
        self.connection.post(&path, &headers, body, patience)
    }
}

impl Encoding {
    fn pack(self, body: &[u8]) -> io::Result<Option<(&'static str, Vec<u8>)>> {
        match self {
            Self::Plain => Ok(None),
            Self::Zstd => Ok(Some(("zstd", zstd::bulk::compress(body, 1)?))),
            Self::Gzip => {
                let mut encoder = flate2::read::GzEncoder::new(body, flate2::Compression::fast());
                let mut bytes = Vec::with_capacity(body.len() / 4);
                encoder.read_to_end(&mut bytes)?;
                Ok(Some(("gzip", bytes)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_packed_as_their_header_says() {
        let body = b"the same again and again ".repeat(1_000);
        assert_eq!(Encoding::Plain.pack(&body).unwrap(), None);
        let (name, bytes) = Encoding::Zstd.pack(&body).unwrap().unwrap();
        assert_eq!(
            (name, zstd::decode_all(&bytes[..]).unwrap()),
            ("zstd", body.clone())
        );
        let (name, bytes) = Encoding::Gzip.pack(&body).unwrap().unwrap();
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..])
            .read_to_end(&mut read)
            .unwrap();
        assert_eq!((name, read), ("gzip", body.clone()));
        assert!(bytes.len() < body.len() / 20);
    }
}
