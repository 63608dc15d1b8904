//! A programmable name server over UDP on loopback.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, PTR};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// A name server that answers until it is dropped.
pub struct NameServer {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

/// The answer to a question.
pub enum Reply {
    /// A PTR record.
    Pointer(&'static str),
    /// An A record.
    Address(Ipv4Addr),
    /// Several A records.
    Addresses(Vec<Ipv4Addr>),
    /// This response code without a record.
    Code(ResponseCode),
    /// No answer.
    Silence,
}

impl NameServer {
    /// Starts a server that answers with `decide`. Names are in lower case, without a final dot.
    pub fn start(decide: impl Fn(&str, RecordType) -> Reply + Send + 'static) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, ended) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let end = Arc::clone(&ended);
        std::thread::spawn(move || {
            let mut buffer = [0; MAX_QUERY];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                // An invalid query gets no answer.
                if let Some(answer) = answer(&buffer[..length], &decide) {
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        Self { address, ended }
    }

    /// Returns the address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread.
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = socket.send_to(&[], self.address);
        }
    }
}

fn answer(query: &[u8], decide: &impl Fn(&str, RecordType) -> Reply) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?;
    let name = question.name().to_ascii().to_ascii_lowercase();
    let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    answer.add_query(question.clone());
    let data = match decide(name.trim_end_matches('.'), question.query_type()) {
        Reply::Pointer(to) => vec![RData::PTR(PTR(Name::from_ascii(to).unwrap()))],
        Reply::Address(address) => vec![RData::A(A(address))],
        Reply::Addresses(addresses) => addresses.into_iter().map(|address| RData::A(A(address))).collect(),
        Reply::Code(code) => {
            answer.metadata.response_code = code;
            Vec::new()
        }
        Reply::Silence => return None,
    };
    for data in data {
        answer.add_answer(Record::from_rdata(question.name().clone(), TTL, data));
    }
    answer.to_vec().ok()
}

/// Longer than any query in the tests.
const MAX_QUERY: usize = 1500;

/// The TTL of every record in seconds.
const TTL: u32 = 60;
