//! Workers by names in the domain name system: every address of a name, or every target of a service record.
//!
//! A name is asked for again when its answer is about to be too old. As long as no server answers, what was known last
//! holds; that a name has no records has to be said several times in a row.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use std::time::Instant;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::config::NameServerConfig;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::RecordType;
use tokio::sync::Notify;
use tracing::debug;
use tracing::error;
use tracing::info;
use tracing::warn;

use crate::control::url::WorkerUrl;
use crate::discovery::Herald;
use crate::discovery::limits;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// Each of its addresses (A, AAAA; RFC 1035, RFC 3596) is a worker, at this port.
    Addresses {
        /// The name.
        name: String,
        /// Where workers serve.
        port: u16,
    },
    /// Each target of its service records is a worker, at the port that its record says (SRV, RFC 2782).
    Services {
        /// The name, as `_service._proto.domain`.
        name: String,
    },
}

/// Names that are workers, and who is asked for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamesConfig {
    pub(crate) names: Vec<Named>,
    /// The server; none for those that the system asks.
    pub(crate) server: Option<SocketAddr>,
}

/// What is known of one name.
#[derive(Debug, Default)]
struct Known {
    /// URLs of its workers; none until a server has answered.
    workers: Option<BTreeSet<String>>,
    /// It was asked for in vain at least once.
    is_looked_for: bool,
}

#[derive(Debug, Default)]
struct Book {
    names: RefCell<Vec<Known>>,
    changed: Notify,
}

impl Named {
    /// Reads `http://name:port` or `srv://_service._proto.domain`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("srv://") {
            return match is_name(name) {
                true => Ok(Self::Services { name: name.to_owned() }),
                false => {
                    Err("it must be srv:// and a name, such as srv://_http._tcp.engines.example".to_owned())
                }
            };
        }
        if text.starts_with("https://") {
            return Err(
                "workers with https:// have names of their own: give them by --worker-urls".to_owned()
            );
        }
        let parts = text.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').rsplit_once(':'));
        let named =
            parts.and_then(|(name, port)| Some((name, port.parse().ok().filter(|&port: &u16| port != 0)?)));
        match named {
            Some((name, port)) if is_name(name) => Ok(Self::Addresses { name: name.to_owned(), port }),
            Some(_) | None => Err("it must be http://name:port or srv://_service._proto.domain".to_owned()),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Addresses { name, .. } | Self::Services { name } => name,
        }
    }
}

fn is_name(name: &str) -> bool {
    /// Longest name (RFC 1035 §2.3.4).
    const NAME_BYTES_MAX: usize = 253;
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= NAME_BYTES_MAX && name.trim_end_matches('.').split('.').all(is_label)
}

/// Tells control of the names' workers for as long as the process lives.
pub(crate) async fn run(config: NamesConfig, herald: Herald) {
    let resolver = match resolver(config.server) {
        Ok(resolver) => Rc::new(resolver),
        Err(error) => return error!(%error, "names cannot be looked up"),
    };
    let book = Rc::new(Book::default());
    book.names.borrow_mut().resize_with(config.names.len(), Known::default);
    for (index, named) in config.names.iter().enumerate() {
        let (named, resolver, book) = (named.clone(), Rc::clone(&resolver), Rc::clone(&book));
        tokio::task::spawn_local(follow(named, resolver, index, book));
    }
    let mut told = None;
    loop {
        book.changed.notified().await;
        tokio::time::sleep(limits::GATHER).await;
        let Some(urls) = book.urls() else { continue };
        if told.as_ref() == Some(&urls) {
            continue;
        }
        let worker = |url: &String| match WorkerUrl::parse(url) {
            Ok(url) => Some(herald.worker(url)),
            Err(error) => {
                warn!(url, %error, "what a name stands for cannot be used");
                None
            }
        };
        let workers = urls.iter().filter_map(worker).collect();
        told = Some(urls);
        herald.tell(workers).await;
    }
}

fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let mut builder = match server {
        None => TokioResolver::builder_tokio()?,
        Some(server) => {
            let mut at = NameServerConfig::udp_and_tcp(server.ip());
            at.connections.iter_mut().for_each(|connection| connection.port = server.port());
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![at]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // Answers are asked for when they are too old, and not before.
    options.cache_size = 0;
    builder.build()
}

/// Asks for one name again and again.
async fn follow(named: Named, resolver: Rc<TokioResolver>, index: usize, book: Rc<Book>) {
    let (mut empty, mut is_failing) = (0, false);
    loop {
        let pause = match look_up(&named, &resolver).await {
            Ok((workers, lifetime)) => {
                empty = 0;
                if std::mem::take(&mut is_failing) {
                    info!(name = named.name(), "the name is found again");
                }
                book.set(index, Some(workers));
                lifetime.clamp(limits::NAME_LIFETIME_MIN, limits::NAME_LIFETIME_MAX)
            }
            Err(error) => {
                empty = if error.is_no_records_found() { empty + 1 } else { 0 };
                if !std::mem::replace(&mut is_failing, true) {
                    warn!(name = named.name(), %error, "the name is not found: what was known of it holds");
                }
                debug!(name = named.name(), %error, empty, "looked up in vain");
                let is_gone = empty >= limits::NAME_EMPTY_MIN;
                book.set(index, is_gone.then(BTreeSet::new));
                limits::NAME_PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// URLs of a name's workers, and how long that holds.
async fn look_up(named: &Named, resolver: &TokioResolver) -> Result<(BTreeSet<String>, Duration), NetError> {
    let left = |until: Instant| until.saturating_duration_since(Instant::now());
    match named {
        Named::Addresses { name, port } => {
            let found = resolver.lookup_ip(name.as_str()).await?;
            let urls = found.iter().map(|address| format!("http://{}", SocketAddr::new(address, *port)));
            Ok((urls.collect(), left(found.valid_until())))
        }
        Named::Services { name } => {
            let found = resolver.lookup(name.as_str(), RecordType::SRV).await?;
            let url = |data: &RData| match data {
                RData::SRV(service) if service.port != 0 => {
                    let target = service.target.to_utf8();
                    Some(format!("http://{}:{}", target.trim_end_matches('.'), service.port))
                }
                _ => None,
            };
            let urls = found.answers().iter().filter_map(|record| url(&record.data));
            Ok((urls.collect(), left(found.valid_until())))
        }
    }
}

// === impl Book ===

impl Book {
    /// Takes in what a name stands for; none if no server has said anything.
    fn set(&self, index: usize, workers: Option<BTreeSet<String>>) {
        let known = &mut self.names.borrow_mut()[index];
        known.is_looked_for = true;
        if workers.is_some() {
            known.workers = workers;
        }
        self.changed.notify_one();
    }

    /// URLs of all workers; none as long as a name has not been asked for.
    fn urls(&self) -> Option<BTreeSet<String>> {
        let names = self.names.borrow();
        let is_any_known = names.iter().any(|known| known.workers.is_some());
        if !is_any_known || !names.iter().all(|known| known.is_looked_for) {
            return None;
        }
        Some(names.iter().flat_map(|known| known.workers.iter().flatten().cloned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_or_refused_by_their_form() {
        let addresses = |name: &str, port| Ok(Named::Addresses { name: name.to_owned(), port });
        assert_eq!(Named::parse("http://engines.example:8000"), addresses("engines.example", 8000));
        assert_eq!(Named::parse("http://engines:1/"), addresses("engines", 1));
        let services = Named::Services { name: "_http._tcp.engines.example.".to_owned() };
        assert_eq!(Named::parse("srv://_http._tcp.engines.example."), Ok(services));
        for text in [
            "engines",
            "http://engines",
            "http://:80",
            "http://a:0",
            "http://a b:80",
            "srv://",
            "srv://a..b",
            "https://a:1",
        ] {
            assert!(Named::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_was_known_holds_until_something_else_is() {
        let set = |urls: &[&str]| urls.iter().map(|&url| url.to_owned()).collect::<BTreeSet<_>>();
        let book = Book::default();
        book.names.borrow_mut().resize_with(2, Known::default);
        book.set(0, Some(set(&["a", "b"])));
        assert_eq!(book.urls(), None, "one name has not been asked for");
        book.set(1, None);
        assert_eq!(book.urls(), Some(set(&["a", "b"])));
        book.set(1, Some(set(&["b", "c"])));
        book.set(0, None);
        assert_eq!(book.urls(), Some(set(&["a", "b", "c"])));
        book.set(0, Some(set(&[])));
        assert_eq!(book.urls(), Some(set(&["b", "c"])));
    }
}
