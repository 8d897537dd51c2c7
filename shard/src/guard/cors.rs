//! CORS (Fetch standard §3.2): which pages may read answers, as header lines made once at start.

/// The header lines of every kind of answer.
#[derive(Debug)]
pub(crate) struct Cors {
    /// What requests from nowhere in particular are answered with, then what each origin is.
    blocks: Vec<Lines>,
    origins: Vec<Box<[u8]>>,
}

/// Lines for one kind of client.
#[derive(Debug)]
struct Lines {
    answer: Box<[u8]>,
    preflight: Box<[u8]>,
}

/// Which lines an answer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CorsBlock {
    block: u16,
    is_preflight: bool,
}

/// What a preflight is told besides: methods, and for how many seconds the browser may remember it.
const PREFLIGHT: &str =
    "access-control-allow-methods: GET, POST, PUT, DELETE, OPTIONS\r\naccess-control-max-age: 3600\r\n";
const VARY: &str = "vary: origin\r\n";

// === impl Cors ===

impl Cors {
    /// Lines for answers to these origins, or to any if there are none.
    pub(crate) fn new(origins: &[String]) -> Self {
        if origins.is_empty() {
            // A wildcard does not stand for `authorization`, which has to be named.
            let answer = "access-control-allow-origin: *\r\naccess-control-expose-headers: *\r\n";
            let preflight = format!("{answer}{PREFLIGHT}access-control-allow-headers: *, authorization\r\n");
            return Self { blocks: vec![Lines::new(answer, &preflight)], origins: Vec::new() };
        }
        let known = origins.iter().map(|origin| {
            let allow = format!("access-control-allow-origin: {origin}\r\n{VARY}");
            let answer = format!("{allow}access-control-expose-headers: x-request-id\r\n");
            let headers = "access-control-allow-headers: content-type, authorization\r\n";
            Lines::new(&answer, &format!("{answer}{PREFLIGHT}{headers}"))
        });
        Self {
            blocks: std::iter::once(Lines::new(VARY, VARY)).chain(known).collect(),
            origins: origins.iter().map(|origin| origin.as_bytes().into()).collect(),
        }
    }

    /// No lines at all: pages of other origins read nothing.
    pub(crate) fn silent() -> Self {
        Self { blocks: vec![Lines::new("", "")], origins: Vec::new() }
    }

    /// The block for a request of this origin, which is asked for only if it matters.
    pub(crate) fn block<'a>(&self, origin: impl FnOnce() -> Option<&'a [u8]>) -> CorsBlock {
        let at = if self.origins.is_empty() {
            None
        } else {
            origin().and_then(|origin| self.origins.iter().position(|known| **known == *origin))
        };
        CorsBlock { block: at.map_or(0, |at| at as u16 + 1), is_preflight: false }
    }

    pub(crate) fn lines(&self, block: CorsBlock) -> &[u8] {
        let lines = &self.blocks[usize::from(block.block)];
        if block.is_preflight { &lines.preflight } else { &lines.answer }
    }
}

impl Lines {
    fn new(answer: &str, preflight: &str) -> Self {
        Self { answer: answer.as_bytes().into(), preflight: preflight.as_bytes().into() }
    }
}

// === impl CorsBlock ===

impl CorsBlock {
    /// The same for an answer to a preflight.
    pub(crate) fn for_preflight(self) -> Self {
        Self { is_preflight: true, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn lines<'a>(cors: &'a Cors, origin: Option<&str>) -> (&'a str, &'a str) {
        let block = cors.block(|| origin.map(str::as_bytes));
        let text = |block| std::str::from_utf8(cors.lines(block)).expect("text");
        (text(block), text(block.for_preflight()))
    }

    #[test]
    fn without_a_list_every_origin_may_read() {
        let cors = Cors::new(&[]);
        for origin in [None, Some("https://a.example")] {
            let (answer, preflight) = lines(&cors, origin);
            assert_eq!(answer, "access-control-allow-origin: *\r\naccess-control-expose-headers: *\r\n");
            assert!(preflight.starts_with(answer) && preflight.contains("allow-headers: *, authorization"));
            assert!(preflight.contains("allow-methods: GET, POST, PUT, DELETE, OPTIONS"));
        }
    }

    #[test]
    fn with_a_list_the_others_may_not() {
        let cors = Cors::new(&["https://a.example".to_owned(), "http://b:8080".to_owned()]);
        for stranger in [None, Some("https://c.example"), Some("https://a.example:1"), Some("null")] {
            assert_eq!(lines(&cors, stranger), ("vary: origin\r\n", "vary: origin\r\n"), "{stranger:?}");
        }
        let (answer, preflight) = lines(&cors, Some("http://b:8080"));
        assert_eq!(
            answer,
            "access-control-allow-origin: http://b:8080\r\nvary: origin\r\naccess-control-expose-headers: x-request-id\r\n"
        );
        assert!(preflight.ends_with("access-control-allow-headers: content-type, authorization\r\n"));
        assert!(preflight.contains("access-control-max-age: 3600\r\n"));
    }
}
