//! Names for a sandbox that reaches nothing but this proxy: each is given an address that stands for it.
//!
//! ```text
//! A api.example.com? ─▶ 198.18.73.5       kept in a table, so that a connection to 198.18.73.5 is one to api.example.com
//! AAAA               ─▶ no such address   (an empty answer: the name exists, RFC 4074 §3)
//! anything else      ─▶ an empty answer, or why not
//! ```
//!
//! In: a question (RFC 1035), over UDP or TCP. Out: at most one answer of at most one record, so none is ever cut off.
//!
//! Invariants:
//! * Nothing is asked of anybody: no question leaves the machine, and what the sandbox looks up tells nobody anything. The
//!   name is resolved when a connection that is allowed is made, by the proxy.
//! * Every name that could be one gets an address, whatever the policy: a connection to it is told why it is refused.
//! * An address stands for a name as long as the table has room for it, and for the same one after a restart, unless two
//!   names want the same: it follows from the name.
//! * Addresses are of 198.18.0.0/15 (RFC 2544), which nobody routes, and which is refused as a destination.
//!
//! What comes is hostile: answers are dropped (else two servers could talk for ever), what cannot be parsed is said to be
//! so, and one message is one bounded piece of work.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};
use ipnet::Ipv4Net;
use lru::LruCache;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tracing::debug;

use crate::target::{Authority, Host};

/// The addresses that stand for a sandbox's names.
#[derive(Debug)]
pub(crate) struct StandIns(Mutex<Table>);

#[derive(Debug)]
struct Table {
    by_name: LruCache<String, Ipv4Addr>,
    by_address: HashMap<Ipv4Addr, String>,
}

/// Names that have an address at once; the one that was needed least lately makes room.
const MAX_NAMES: NonZeroUsize = NonZeroUsize::new(16 * 1024).unwrap();
const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);
/// Seconds for which an answer may be kept.
const TTL: u32 = 60;
/// Bytes of a message that is looked at. Questions have a name of 255 and a few options.
const MAX_MESSAGE: usize = 4096;
/// Bytes of a message that we say we take over UDP, as DNS servers agreed on (DNS Flag Day 2020).
const MAX_PAYLOAD: u16 = 1232;
/// Between two questions of a TCP connection, and for each to be whole.
const IDLE: Duration = Duration::from_secs(10);
/// Between two tries after receiving itself failed.
const PAUSE: Duration = Duration::from_millis(100);

// === impl StandIns ===

impl StandIns {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Table {
            by_name: LruCache::new(MAX_NAMES),
            by_address: HashMap::new(),
        }))
    }

    /// The address that stands for a name.
    fn address_of(&self, name: &str) -> Ipv4Addr {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.address_of(name)
    }

    /// What a connection to this address means: the name that it stands for, if it does.
    pub(crate) fn meant(&self, at: SocketAddr) -> Authority {
        let address = at.ip().to_canonical();
        let host = match address {
            IpAddr::V4(four) => self.name_of(four).map(Host::Name),
            IpAddr::V6(_) => None,
        };
        Authority {
            host: host.unwrap_or(Host::Address(address)),
            port: at.port(),
        }
    }

    fn name_of(&self, address: Ipv4Addr) -> Option<String> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = table.by_address.get(&address)?.clone();
        table.by_name.promote(&name); // whoever connects needs it
        Some(name)
    }

    /// The answer to a message; none to what is no question.
    pub(crate) fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let answer = match Message::from_vec(message) {
            Ok(asked) if asked.metadata.message_type == MessageType::Response => return None,
            Ok(asked) => self.answered(&asked),
            Err(_) => {
                let header = Header::read(&mut BinDecoder::new(message)).ok()?;
                if header.metadata.message_type == MessageType::Response {
                    return None;
                }
                let (id, code) = (header.metadata.id, header.metadata.op_code);
                Message::error_msg(id, code, ResponseCode::FormErr)
            }
        };
        answer.to_vec().ok()
    }

    fn answered(&self, asked: &Message) -> Message {
        let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
        answer.metadata.recursion_desired = asked.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_queries(asked.queries.iter().take(1).cloned());
        if asked.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_PAYLOAD);
            answer.set_edns(edns);
        }
        let (code, record) = match (asked.metadata.op_code, &asked.queries[..]) {
            (OpCode::Query, [query]) => self.found(query),
            (OpCode::Query, _) => (ResponseCode::FormErr, None),
            _ => (ResponseCode::NotImp, None),
        };
        answer.metadata.response_code = code;
        answer.add_answers(record);
        answer
    }

    fn found(&self, query: &Query) -> (ResponseCode, Option<Record>) {
        if query.query_class != DNSClass::IN {
            return (ResponseCode::Refused, None);
        }
        let Some(name) = host_name(&query.name) else {
            return (ResponseCode::NXDomain, None);
        };
        let data = match query.query_type {
            // The sandbox's own (RFC 6761 §6.3).
            RecordType::A if name == "localhost" => RData::A(A(Ipv4Addr::LOCALHOST)),
            RecordType::AAAA if name == "localhost" => RData::AAAA(AAAA(Ipv6Addr::LOCALHOST)),
            RecordType::A | RecordType::ANY => RData::A(A(self.address_of(&name))),
            RecordType::AXFR | RecordType::IXFR => return (ResponseCode::Refused, None),
            _ => return (ResponseCode::NoError, None),
        };
        let record = Record::from_rdata(query.name.clone(), TTL, data);
        (ResponseCode::NoError, Some(record))
    }

    /// Answers what comes over UDP, for ever.
    pub(crate) async fn serve_udp(&self, socket: &UdpSocket) {
        let mut message = vec![0; MAX_MESSAGE];
        loop {
            match socket.recv_from(&mut message).await {
                Ok((length, from)) => {
                    if let Some(answer) = self.answer(&message[..length]) {
                        // Who does not take it asks again; nobody else waits for him.
                        let _unsent = socket.try_send_to(&answer, from);
                    }
                }
                Err(error) => {
                    debug!(%error, "no question could be received");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Answers what comes over one TCP connection, each message after its length (RFC 7766 §8).
    pub(crate) async fn serve_tcp(&self, mut stream: TcpStream) {
        while let Ok(Ok(Some(message))) = timeout(IDLE, framed(&mut stream)).await {
            let Some(answer) = self.answer(&message) else {
                return;
            };
            let Ok(length) = u16::try_from(answer.len()) else {
                return;
            };
            let framed = [&length.to_be_bytes()[..], &answer].concat();
            if !matches!(timeout(IDLE, stream.write_all(&framed)).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

/// The next message; none at the stream's end, or if it is longer than any question.
async fn framed(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_MESSAGE {
        return Ok(None);
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// A name that could be a machine's.
fn host_name(name: &Name) -> Option<String> {
    let labels: Option<Vec<&str>> = name
        .iter()
        .map(|label| std::str::from_utf8(label).ok())
        .collect();
    let labels = labels?;
    // Dots within labels would become others; and questions for names of addresses are none of ours.
    if labels.iter().any(|label| label.contains('.')) || labels.last() == Some(&"arpa") {
        return None;
    }
    match Host::parse(&labels.join(".")).ok()? {
        Host::Name(name) => Some(name),
        Host::Address(_) => None,
    }
}

// === impl Table ===

impl Table {
    fn address_of(&mut self, name: &str) -> Ipv4Addr {
        if let Some(address) = self.by_name.get(name) {
            return *address;
        }
        let address = self.free(name);
        if let Some((_, released)) = self.by_name.push(name.to_owned(), address) {
            self.by_address.remove(&released);
        }
        self.by_address.insert(address, name.to_owned());
        address
    }

    /// The address that follows from a name, or one of those that do after it: there are eight times as many as names. The
    /// way from one to the next follows from the name too, so that nobody finds many names that all go the same one.
    fn free(&self, name: &str) -> Ipv4Addr {
        let size = 1_u32 << (32 - POOL.prefix_len());
        let mut hasher = DefaultHasher::new(); // of fixed keys
        name.hash(&mut hasher);
        let [a, b, c, d, rest @ ..] = hasher.finish().to_be_bytes();
        let first = u32::from_be_bytes([a, b, c, d]);
        let step = u32::from_be_bytes(rest) | 1; // odd, so that it leads everywhere
        let base = POOL.network().to_bits();
        let way = (0..size).map(|turn| first.wrapping_add(turn.wrapping_mul(step)) % size);
        let mut candidates = way.map(|offset| Ipv4Addr::from_bits(base + offset));
        let free = candidates.find(|address| {
            let last = address.octets()[3]; // some programs take these for no machine's
            !matches!(last, 0 | 255) && !self.by_address.contains_key(address)
        });
        free.unwrap_or_else(|| POOL.network())
    }
}

#[cfg(test)]
mod tests;
