//! Two protocols share the agents' port. The first byte tells them apart: HTTP begins with a method in capital letters,
//! a frame of the WhaTap protocol with its source code, a small number.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use tokio::net::TcpStream;

use crate::listen::Serving;
use crate::log;

/// Waits for the first byte, without taking it. A peer of the other protocol is counted and named once in a while.
pub(crate) async fn is_http(stream: &TcpStream, address: SocketAddr, serving: &Serving) -> bool {
    let mut first = [0; 1];
    let Ok(Ok(1)) = tokio::time::timeout(serving.patience.head, stream.peek(&mut first)).await
    else {
        return false;
    };
    match first[0] {
        b'A'..=b'Z' => true,
        source if is_whatap(source) => {
            serving
                .connections
                .whatap_tcp
                .fetch_add(1, Ordering::Relaxed);
            log::limited("whatap tcp", || {
                format!(
                    "{address} speaks the WhaTap protocol, which this version does not serve: closed"
                )
            });
            false
        }
        _ => {
            serving.connections.refused.fetch_add(1, Ordering::Relaxed);
            false
        }
    }
}

/// The source codes in use: 1 to 5, 10, 37 and 40.
fn is_whatap(source: u8) -> bool {
    matches!(source, 1..=5 | 10 | 37 | 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_http_method_looks_like_a_frame() {
        assert!((b'A'..=b'Z').all(|letter| !is_whatap(letter)));
        assert!(is_whatap(1) && !is_whatap(0));
    }
}
