//! Reading a request's body: bounded after decompression, while it streams, so that neither a bomb nor a drip costs more
//! than its share.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// Why a body was not read. Each names the counter that it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadBody {
    TooLarge,
    /// Much more comes out than went in.
    Bomb,
    Encoding,
    /// What the encoding promises is not there, or damaged.
    Corrupt,
    TooSlow,
    /// Too many large bodies at once.
    Busy,
    /// The peer went away.
    Gone,
}

impl BadBody {
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "body_too_large",
            Self::Bomb => "compression_bomb",
            Self::Encoding => "unknown_encoding",
            Self::Corrupt => "corrupt_encoding",
            Self::TooSlow => "body_too_slow",
            Self::Busy => "busy",
            Self::Gone => "disconnected",
        }
    }
}

/// What bodies may cost together. One for the whole server.
#[derive(Clone)]
pub struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TOTAL / UNIT)))
    }
}

/// A body, and its share of the budget until it is dropped.
pub struct Read {
    pub bytes: Vec<u8>,
    /// What came over the wire.
    pub received: u64,
    _share: Share,
}

/// Reads a whole body and undoes its `Content-Encoding`.
pub async fn read(headers: &HeaderMap, body: Body, budget: &Budget) -> Result<Read, BadBody> {
    let mut unpacker = Unpacker::new(headers)?;
    let announced = length(headers);
    if announced.is_some_and(|length| length > MAX as u64) {
        return Err(BadBody::TooLarge);
    }
    let mut out = Bounded::new(budget.clone());
    if matches!(unpacker, Unpacker::Plain) {
        out.bytes
            .reserve(announced.map_or(0, |n| n.min(UNIT as u64) as usize));
    }
    let mut body = std::pin::pin!(body);
    let begun = Instant::now();
    loop {
        let frame = tokio::time::timeout_at(deadline(begun, out.received), body.frame());
        let Some(frame) = frame.await.map_err(|_| BadBody::TooSlow)? else {
            break;
        };
        let Ok(chunk) = frame.map_err(|_| BadBody::Gone)?.into_data() else {
            continue;
        };
        out.received += chunk.len() as u64;
        unpacker.unpack(&chunk, &mut out)?;
    }
    unpacker.finish(&mut out)?;
    Ok(Read {
        bytes: out.bytes,
        received: out.received,
        _share: out.share,
    })
}

/// Ten seconds for a start, then one more for every kilobyte that has come.
fn deadline(begun: Instant, received: u64) -> Instant {
    begun + GRACE + Duration::from_secs(received / SLOWEST_PER_SECOND)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

enum Unpacker {
    Plain,
    Gzip(Box<MultiGzDecoder<Chunk>>),
    Zstd {
        decoder: Box<Decoder<'static>>,
        complete: bool,
    },
}

impl Unpacker {
    fn new(headers: &HeaderMap) -> Result<Self, BadBody> {
        let mut encodings = headers.get_all(header::CONTENT_ENCODING).into_iter();
        let encoding = encodings
            .next()
            .map_or(Ok("identity"), |v| v.to_str())
            .map_err(|_| BadBody::Encoding)?;
        if encodings.next().is_some() {
            return Err(BadBody::Encoding);
        }
        match encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Plain),
            "gzip" | "x-gzip" => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(Chunk::default())))),
            "zstd" => {
                let mut decoder = Decoder::new().map_err(|_| BadBody::Busy)?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
                    .map_err(|_| BadBody::Busy)?;
                Ok(Self::Zstd {
                    decoder: Box::new(decoder),
                    complete: true,
                })
            }
            _ => Err(BadBody::Encoding),
        }
    }

    fn unpack(&mut self, chunk: &Bytes, out: &mut Bounded) -> Result<(), BadBody> {
        match self {
            Self::Plain => out.push(chunk),
            Self::Gzip(decoder) => {
                // Small pieces, so that little comes out between two looks at the limits.
                for piece in chunk.chunks(PIECE) {
                    decoder.write_all(piece).map_err(|_| BadBody::Corrupt)?;
                    out.push_and_clear(decoder.get_mut())?;
                }
                Ok(())
            }
            Self::Zstd { decoder, complete } => {
                let mut input = InBuffer::around(chunk);
                let mut buffer = vec![0; PIECE * 8];
                loop {
                    let mut output = OutBuffer::around(&mut buffer[..]);
                    let more = decoder
                        .run(&mut input, &mut output)
                        .map_err(|_| BadBody::Corrupt)?;
                    let written = output.pos();
                    *complete = more == 0;
                    out.push(&buffer[..written])?;
                    if input.pos() == chunk.len() && written < buffer.len() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn finish(&mut self, out: &mut Bounded) -> Result<(), BadBody> {
        match self {
            Self::Plain => Ok(()),
            Self::Gzip(decoder) => {
                decoder.try_finish().map_err(|_| BadBody::Corrupt)?;
                out.push_and_clear(decoder.get_mut())
            }
            Self::Zstd { complete, .. } => complete.then_some(()).ok_or(BadBody::Corrupt),
        }
    }
}

/// What one piece unpacked to.
#[derive(Default)]
struct Chunk(Vec<u8>);

impl Write for Chunk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The unpacked body so far.
struct Bounded {
    bytes: Vec<u8>,
    received: u64,
    share: Share,
    budget: Budget,
}

/// Permits of the budget, one for each started [`UNIT`].
#[derive(Default)]
struct Share(Vec<OwnedSemaphorePermit>);

impl Bounded {
    fn new(budget: Budget) -> Self {
        Self {
            bytes: Vec::new(),
            received: 0,
            share: Share::default(),
            budget,
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), BadBody> {
        let size = self.bytes.len() + bytes.len();
        if size > MAX {
            return Err(BadBody::TooLarge);
        }
        if size as u64 > FREE_OF_RATIO + self.received.saturating_mul(MAX_RATIO) {
            return Err(BadBody::Bomb);
        }
        let wanted = size.div_ceil(UNIT);
        while self.share.0.len() < wanted {
            let permit = Arc::clone(&self.budget.0)
                .try_acquire_owned()
                .map_err(|_| BadBody::Busy)?;
            self.share.0.push(permit);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn push_and_clear(&mut self, chunk: &mut Chunk) -> Result<(), BadBody> {
        let pushed = self.push(&chunk.0);
        chunk.0.clear();
        pushed
    }
}

/// Of one body, after decompression.
pub const MAX: usize = 64 * 1024 * 1024;
/// Of all bodies that are being read or decoded.
const TOTAL: usize = 128 * 1024 * 1024;
const UNIT: usize = 64 * 1024;
const PIECE: usize = 16 * 1024;
/// Honest telemetry packs ten to fifty times.
const MAX_RATIO: u64 = 200;
const FREE_OF_RATIO: u64 = 1024 * 1024;
const ZSTD_WINDOW_LOG: u32 = 23;
const GRACE: Duration = Duration::from_secs(10);
const SLOWEST_PER_SECOND: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn unpack(encoding: &'static str, body: Vec<u8>) -> Result<Vec<u8>, BadBody> {
        let headers =
            HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(encoding))]);
        read(&headers, Body::from(body), &Budget::default())
            .await
            .map(|read| read.bytes)
    }

    fn text() -> Vec<u8> {
        (0..300_000u32)
            .flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 7).to_le_bytes())
            .collect()
    }

    #[tokio::test]
    async fn every_encoding_gives_the_same_body() {
        let text = text();
        assert!(unpack("identity", text.clone()).await.unwrap() == text);
        assert!(unpack("gzip", gzip(&text)).await.unwrap() == text);
        assert!(
            unpack("ZSTD", zstd::encode_all(&text[..], 3).unwrap())
                .await
                .unwrap()
                == text
        );
        let two = [
            zstd::encode_all(&b"a"[..], 3).unwrap(),
            zstd::encode_all(&b"b"[..], 3).unwrap(),
        ]
        .concat();
        assert_eq!(unpack("zstd", two).await.unwrap(), b"ab");
        assert_eq!(unpack("br", text).await, Err(BadBody::Encoding));
        assert_eq!(unpack("gzip", Vec::new()).await, Err(BadBody::Corrupt));
    }

    #[tokio::test]
    async fn a_cut_or_damaged_body_is_no_body() {
        for (encoding, packed) in [
            ("gzip", gzip(&text())),
            ("zstd", zstd::encode_all(&text()[..], 3).unwrap()),
        ] {
            for cut in [1, 5, packed.len() / 2, packed.len() - 1] {
                assert_eq!(
                    unpack(encoding, packed[..cut].to_vec()).await,
                    Err(BadBody::Corrupt),
                    "{encoding} {cut}"
                );
            }
            assert_eq!(
                unpack(encoding, b"{\"resourceSpans\":[]}".to_vec()).await,
                Err(BadBody::Corrupt)
            );
        }
    }

    #[tokio::test]
    async fn a_bomb_is_stopped_early() {
        let zeros = vec![0; 32 * 1024 * 1024];
        assert_eq!(unpack("gzip", gzip(&zeros)).await, Err(BadBody::Bomb));
        assert_eq!(
            unpack("zstd", zstd::encode_all(&zeros[..], 3).unwrap()).await,
            Err(BadBody::Bomb)
        );
    }

    #[tokio::test]
    async fn one_byte_too_many_is_too_large() {
        assert!(unpack("identity", vec![7; MAX]).await.is_ok());
        assert_eq!(
            unpack("identity", vec![7; MAX + 1]).await,
            Err(BadBody::TooLarge)
        );
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded_and_give_back() {
        let budget = Budget::default();
        let big = || read_plain(MAX, &budget);
        let (first, second) = (big().await.ok(), big().await.ok());
        assert!(first.is_some() && second.is_some());
        assert_eq!(read_plain(1, &budget).await.err(), Some(BadBody::Busy));
        drop(first);
        assert!(big().await.is_ok());
    }

    async fn read_plain(size: usize, budget: &Budget) -> Result<Read, BadBody> {
        read(&HeaderMap::new(), Body::from(vec![1; size]), budget).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_drip_is_cut_off() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<()>(1);
        let body = Body::new(Never(receiver));
        let begun = Instant::now();
        let answer = read(&HeaderMap::new(), body, &Budget::default()).await;
        assert_eq!(answer.err(), Some(BadBody::TooSlow));
        assert_eq!(begun.elapsed().as_secs(), 10);
        drop(sender);
    }

    /// A body that never says anything.
    struct Never(tokio::sync::mpsc::Receiver<()>);

    impl http_body::Body for Never {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
            self.0.poll_recv(cx).map(|_| None)
        }
    }
}
