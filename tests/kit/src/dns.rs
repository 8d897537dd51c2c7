//! A server of the domain name system with a table of records, over UDP.

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

const HEADER_BYTES: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const TYPE_SRV: u16 = 33;
const NOT_FOUND: u8 = 3;
/// The name that the question has: a pointer to where it begins.
const SAME_NAME: [u8; 2] = [0xc0, HEADER_BYTES as u8];

/// What a name has.
#[derive(Clone, Debug)]
pub enum Record {
    /// An address.
    Address(IpAddr),
    /// A service at a port of a target.
    Service(u16, String),
}

/// The server. It ends with the process.
#[derive(Debug)]
pub struct Dns {
    addr: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    records: HashMap<String, Vec<Record>>,
    /// How long answers hold, in seconds.
    lifetime_s: u32,
    /// Answer nothing but this code.
    code: Option<u8>,
    asked: usize,
}

// === impl Dns ===

impl Dns {
    /// A server without records, whose answers hold for so many seconds.
    #[track_caller]
    pub fn start(lifetime_s: u32) -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let addr = socket.local_addr().expect("it is bound");
        let shared = Arc::new(Mutex::new(Shared { lifetime_s, ..Shared::default() }));
        let serving = Arc::clone(&shared);
        thread::spawn(move || serve(&socket, &serving));
        Dns { addr, shared }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Has a name have these records, and no others.
    pub fn set(&self, name: &str, records: &[Record]) {
        let mut shared = self.shared.lock().expect("no holder panics");
        shared.records.insert(name.to_owned(), records.to_vec());
    }

    /// Answers every question with this code, or properly again: 2 that the server failed, 3 that there is no such name.
    pub fn set_code(&self, code: Option<u8>) {
        self.shared.lock().expect("no holder panics").code = code;
    }

    /// Questions so far.
    pub fn asked(&self) -> usize {
        self.shared.lock().expect("no holder panics").asked
    }
}

fn serve(socket: &UdpSocket, shared: &Mutex<Shared>) {
    let mut buf = [0; 1500];
    while let Ok((len, from)) = socket.recv_from(&mut buf) {
        if let Some(answer) = answer(&buf[..len], &mut shared.lock().expect("no holder panics")) {
            // Whoever asked may have gone.
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// The answer to a question (RFC 1035 §4).
fn answer(query: &[u8], shared: &mut Shared) -> Option<Vec<u8>> {
    let (mut labels, mut at) = (Vec::new(), HEADER_BYTES);
    while let Some(&len @ 1..) = query.get(at) {
        let label = query.get(at + 1..at + 1 + usize::from(len))?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += 1 + usize::from(len);
    }
    let question_end = at + 5;
    let kind = u16::from_be_bytes(query.get(at + 1..at + 3)?.try_into().ok()?);
    shared.asked += 1;
    let records = shared.records.get(&labels.join("."));
    let code = shared.code.unwrap_or(if records.is_some() { 0 } else { NOT_FOUND });
    let data = |record: &Record| match (kind, record) {
        (TYPE_A, Record::Address(IpAddr::V4(address))) => Some(address.octets().to_vec()),
        (TYPE_AAAA, Record::Address(IpAddr::V6(address))) => Some(address.octets().to_vec()),
        (TYPE_SRV, Record::Service(port, target)) => {
            let mut data = [0, 0, 0, 0].to_vec();
            data.extend_from_slice(&port.to_be_bytes());
            for label in target.split('.') {
                data.push(label.len() as u8);
                data.extend_from_slice(label.as_bytes());
            }
            data.push(0);
            Some(data)
        }
        _ => None,
    };
    let answers: Vec<Vec<u8>> =
        records.into_iter().flatten().filter(|_| code == 0).filter_map(data).collect();
    let mut out = query.get(..2)?.to_vec();
    // An answer with authority, to a question that may be passed on.
    out.extend_from_slice(&[0x85, 0x80 | code, 0, 1]);
    out.extend_from_slice(&(answers.len() as u16).to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0]);
    out.extend_from_slice(query.get(HEADER_BYTES..question_end)?);
    for data in answers {
        out.extend_from_slice(&SAME_NAME);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&1_u16.to_be_bytes());
        out.extend_from_slice(&shared.lifetime_s.to_be_bytes());
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(&data);
    }
    Some(out)
}
