//! As much of an HTTP/1.1 client as the uplink needs: one connection, one request at a time, everything bounded in size
//! and time.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

const CONNECT: Duration = Duration::from_secs(5);
const MAX_HEAD: usize = 16 << 10;
const MAX_BODY: usize = 64 << 10;
const MAX_ADDRESSES: usize = 8;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// `host`, `host:port`, `[v6]`, `[v6]:port`, or a bare v6 address.
    pub fn parse(text: &str, port: u16) -> Option<Self> {
        let text = text.trim();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, digits)) if !host.contains(':') || host.ends_with(']') => {
                (host, digits.parse().ok()?)
            }
            _ => (text, port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let clean = !host.is_empty()
            && !host.contains(|c: char| c.is_whitespace() || c.is_control() || "/@?#".contains(c));
        clean.then(|| Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Fault {
    /// The name is not known.
    Unresolved,
    /// The name means a host elsewhere, and nothing protects the way there.
    NotLoopback(SocketAddr),
    Refused,
    TimedOut,
    /// The connection broke: before a byte of the answer, or within it.
    Broken {
        answering: bool,
    },
    /// Whoever answered does not speak HTTP.
    NotHttp,
    Other(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused => Self::Refused,
            Kind::TimedOut | Kind::WouldBlock => Self::TimedOut,
            Kind::ConnectionReset
            | Kind::BrokenPipe
            | Kind::ConnectionAborted
            | Kind::UnexpectedEof
            | Kind::NotConnected => Self::Broken { answering: false },
            _ => Self::Other(error),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved => write!(f, "the name does not resolve"),
            Self::NotLoopback(address) => write!(
                f,
                "{} is not this host and there is no TLS yet; to send in the clear, set `whatap.server.protocol`",
                address.ip()
            ),
            Self::Refused => write!(f, "the connection is refused"),
            Self::TimedOut => write!(f, "no answer in time"),
            Self::Broken { .. } => write!(f, "the connection broke"),
            Self::NotHttp => write!(f, "the answer is not HTTP"),
            Self::Other(error) => write!(f, "{error}"),
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
    keep: bool,
}

/// A connection that is used for many requests.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    host: String,
    is_loopback: bool,
    /// Requests that were answered.
    used: u64,
    open: bool,
    input: Vec<u8>,
}

impl Connection {
    /// Tries the addresses of the name in turn. `anywhere`: hosts other than this one are allowed.
    pub fn open(address: &Address, anywhere: bool) -> Result<Self, Fault> {
        let found = (address.host.as_str(), address.port)
            .to_socket_addrs()
            .map_err(|_| Fault::Unresolved)?;
        let mut last = Fault::Unresolved;
        for socket in found.take(MAX_ADDRESSES) {
            if !anywhere && !socket.ip().is_loopback() {
                last = Fault::NotLoopback(socket);
                continue;
            }
            match TcpStream::connect_timeout(&socket, CONNECT) {
                Ok(stream) => return Self::over(stream, address, socket),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    fn over(stream: TcpStream, address: &Address, socket: SocketAddr) -> Result<Self, Fault> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            host: address.to_string(),
            is_loopback: socket.ip().is_loopback(),
            used: 0,
            open: true,
            input: Vec::new(),
        })
    }

    pub const fn is_loopback(&self) -> bool {
        self.is_loopback
    }

    /// The peer may have closed it meanwhile without meaning anything by it.
    pub const fn was_used(&self) -> bool {
        self.used > 0
    }

    /// False after an answer that closed it.
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Sends a request and waits for its answer; `patience` is for each of the two.
    pub fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        patience: Duration,
    ) -> Result<Answer, Fault> {
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n",
            self.host,
            body.len()
        );
        for (name, value) in headers {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        self.open = false;
        self.stream.set_write_timeout(Some(patience))?;
        if body.len() <= 16 << 10 {
            let mut whole = head.into_bytes();
            whole.extend_from_slice(body);
            self.stream.write_all(&whole)?;
        } else {
            self.stream.write_all(head.as_bytes())?;
            self.stream.write_all(body)?;
        }
        let answer = self.answer(Instant::now() + patience)?;
        self.used += 1;
        self.open = answer.keep;
        Ok(answer)
    }

    fn answer(&mut self, deadline: Instant) -> Result<Answer, Fault> {
        loop {
            let end = self.head_end(deadline)?;
            let head =
                Head::parse(self.input.get(..end).unwrap_or_default()).ok_or(Fault::NotHttp)?;
            self.input.drain(..end);
            if (100..200).contains(&head.status) && head.status != 101 {
                continue;
            }
            let (body, keep) = self.body(&head, deadline).map_err(in_answer)?;
            return Ok(Answer {
                status: head.status,
                retry_after: head.retry_after,
                body,
                keep: keep && head.keep,
            });
        }
    }

    /// Bytes of the head, its empty line included.
    fn head_end(&mut self, deadline: Instant) -> Result<usize, Fault> {
        loop {
            if let Some(end) = self
                .input
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                return Ok(end + 4);
            }
            let starts = self.input.len().min(5);
            if self.input.len() > MAX_HEAD || self.input[..starts] != b"HTTP/"[..starts] {
                return Err(Fault::NotHttp);
            }
            let answering = !self.input.is_empty();
            if self
                .fill(deadline)
                .map_err(|fault| if answering { in_answer(fault) } else { fault })?
                == 0
            {
                return Err(Fault::Broken { answering });
            }
        }
    }

    fn body(&mut self, head: &Head, deadline: Instant) -> Result<(Vec<u8>, bool), Fault> {
        if head.status == 204 || head.status == 304 {
            return Ok((Vec::new(), true));
        }
        if head.chunked {
            return Ok((self.chunks(deadline)?, true));
        }
        match head.length {
            Some(length) if length <= MAX_BODY => Ok((self.exactly(length, deadline)?, true)),
            // What is longer than any answer of ours is not read to its end: the connection is not used again.
            Some(_) => Ok((self.exactly(MAX_BODY, deadline)?, false)),
            None => {
                while self.input.len() < MAX_BODY && self.fill(deadline)? > 0 {}
                Ok((std::mem::take(&mut self.input), false))
            }
        }
    }

    fn chunks(&mut self, deadline: Instant) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        loop {
            let line = self.line(deadline)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(digits, 16).map_err(|_| Fault::NotHttp)?;
            if length == 0 {
                while !self.line(deadline)?.is_empty() {}
                return Ok(body);
            }
            if length > MAX_BODY || body.len() + length > MAX_BODY {
                return Err(Fault::NotHttp);
            }
            body.extend(self.exactly(length, deadline)?);
            if !self.line(deadline)?.is_empty() {
                return Err(Fault::NotHttp);
            }
        }
    }

    fn line(&mut self, deadline: Instant) -> Result<String, Fault> {
        loop {
            if let Some(end) = self.input.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8_lossy(&self.input[..end]).into_owned();
                self.input.drain(..end + 2);
                return Ok(line);
            }
            if self.input.len() > MAX_HEAD {
                return Err(Fault::NotHttp);
            }
            if self.fill(deadline)? == 0 {
                return Err(Fault::Broken { answering: true });
            }
        }
    }

    fn exactly(&mut self, length: usize, deadline: Instant) -> Result<Vec<u8>, Fault> {
        while self.input.len() < length {
            if self.fill(deadline)? == 0 {
                return Err(Fault::Broken { answering: true });
            }
        }
        let rest = self.input.split_off(length);
        Ok(std::mem::replace(&mut self.input, rest))
    }

    /// Reads what is there; waits for it until `deadline`. 0 = the peer has closed.
    fn fill(&mut self, deadline: Instant) -> Result<usize, Fault> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::TimedOut);
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(read) => {
                    self.input
                        .extend_from_slice(buffer.get(..read).unwrap_or_default());
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn in_answer(fault: Fault) -> Fault {
    match fault {
        Fault::Broken { .. } => Fault::Broken { answering: true },
        other => other,
    }
}

struct Head {
    status: u16,
    keep: bool,
    chunked: bool,
    length: Option<usize>,
    retry_after: Option<Duration>,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.split("\r\n");
        let (version, rest) = lines.next()?.split_once(' ')?;
        let status = rest.get(..3)?.parse().ok()?;
        let mut head = Self {
            status,
            keep: version == "HTTP/1.1",
            chunked: false,
            length: None,
            retry_after: None,
        };
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = Some(value.parse().ok()?),
                "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
                "connection" => head.keep &= !value.eq_ignore_ascii_case("close"),
                "retry-after" => head.retry_after = value.parse().ok().map(Duration::from_secs),
                _ => {}
            }
        }
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// A peer that answers each connection with the same bytes, then closes.
    fn answers(bytes: &'static [u8]) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut request = [0; 1024];
                let _read = stream.read(&mut request);
                let _written = stream.write_all(bytes);
            }
        });
        Address {
            host: "127.0.0.1".to_owned(),
            port,
        }
    }

    fn post(address: &Address) -> Result<Answer, Fault> {
        Connection::open(address, false)?.post(
            "/x",
            &[("A", "b")],
            b"body",
            Duration::from_millis(400),
        )
    }

    #[test]
    fn answers_of_all_forms_are_read() {
        for (bytes, body) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"[..], &b"hi"[..]),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1;x=y\r\ni\r\n0\r\n\r\n", b"hi"),
            (b"HTTP/1.0 200 OK\r\n\r\nhi", b"hi"),
            (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        ] {
            let answer = post(&answers(bytes)).unwrap();
            assert_eq!(answer.body, body);
        }
        let answer = post(&answers(b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")).unwrap();
        assert_eq!(
            (answer.status, answer.retry_after, answer.keep),
            (503, Some(Duration::from_secs(7)), false)
        );
    }

    #[test]
    fn bad_answers_are_told_apart() {
        assert!(matches!(
            post(&answers(b"SSH-2.0-OpenSSH_9\r\n\r\n")),
            Err(Fault::NotHttp)
        ));
        assert!(matches!(
            post(&answers(b"HTTP/1.1 abc\r\n\r\n")),
            Err(Fault::NotHttp)
        ));
        assert!(matches!(
            post(&answers(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffff\r\n"
            )),
            Err(Fault::NotHttp)
        ));
        assert!(matches!(
            post(&answers(b"")),
            Err(Fault::Broken { answering: false })
        ));
        assert!(matches!(
            post(&answers(b"HTTP/1.1 200 OK\r\nContent-Le")),
            Err(Fault::Broken { answering: true })
        ));
        assert!(matches!(
            post(&answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")),
            Err(Fault::Broken { answering: true })
        ));
    }

    #[test]
    fn an_endless_answer_is_not_read_to_its_end() {
        static ENDLESS: [u8; 200_000] = [b'x'; 200_000];
        let mut bytes = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        bytes.extend(ENDLESS);
        let answer = post(&answers(bytes.leak())).unwrap();
        assert!(answer.body.len() <= MAX_BODY + 4096 && !answer.keep);
    }

    #[test]
    fn silence_and_closed_ports_end_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
        };
        let began = Instant::now();
        assert!(matches!(post(&address), Err(Fault::TimedOut)));
        assert!(began.elapsed() < Duration::from_secs(3));
        drop(listener);
        assert!(matches!(post(&address), Err(Fault::Refused)));
        let unknown = Address {
            host: "no-such-name.invalid".to_owned(),
            port: 1,
        };
        assert!(matches!(
            Connection::open(&unknown, false),
            Err(Fault::Unresolved)
        ));
    }

    #[test]
    fn other_hosts_are_refused_before_a_byte_is_sent() {
        let elsewhere = Address {
            host: "192.0.2.1".to_owned(),
            port: 9,
        };
        let Err(fault) = Connection::open(&elsewhere, false) else {
            panic!("connected")
        };
        assert!(
            fault.to_string().starts_with("192.0.2.1 is not this host"),
            "{fault}"
        );
    }

    #[test]
    fn addresses_are_written_in_many_ways() {
        for (text, expected) in [
            ("a", "a:6600"),
            ("a:1", "a:1"),
            ("::1", "[::1]:6600"),
            ("[::1]", "[::1]:6600"),
            ("[::1]:2", "[::1]:2"),
            (" 10.0.0.1:3 ", "10.0.0.1:3"),
        ] {
            assert_eq!(
                Address::parse(text, 6600).unwrap().to_string(),
                expected,
                "{text}"
            );
        }
        for bad in ["", "a:99999", "a b", "http://x", "a@b", "a:"] {
            assert_eq!(Address::parse(bad, 6600), None, "{bad}");
        }
    }
}
