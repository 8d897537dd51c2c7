//! Where a request stands in a trace, and the header that says so (W3C Trace Context).

/// Length of a `traceparent` header's value of version 00.
pub const TRACEPARENT_BYTES: usize = 55;

/// Where a request stands in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// Names the trace.
    pub trace_id: u128,
    /// Names this request's part of it.
    pub span_id: u64,
    /// The client's part of it; 0 if the trace begins here.
    pub parent_id: u64,
}

impl SpanContext {
    /// The context of a request whose client sent this `traceparent`. None unless it follows the specification and asks
    /// to be recorded; whoever knows a later version begins with the same fields.
    pub fn of_client(traceparent: &[u8], span_id: u64) -> Option<Self> {
        let is_long_enough = traceparent.len() == TRACEPARENT_BYTES
            || (traceparent.len() > TRACEPARENT_BYTES && traceparent[TRACEPARENT_BYTES] == b'-');
        let text =
            std::str::from_utf8(traceparent.get(..TRACEPARENT_BYTES).filter(|_| is_long_enough)?).ok()?;
        let mut fields = text.split('-');
        let version = hex(fields.next()?, 2)?;
        let trace_id = hex(fields.next()?, 32)?;
        let parent_id = hex(fields.next()?, 16)? as u64;
        let flags = hex(fields.next()?, 2)?;
        let is_whole = fields.next().is_none() && (version != 0 || traceparent.len() == TRACEPARENT_BYTES);
        let is_good = version != 0xff && trace_id != 0 && parent_id != 0 && flags & 1 == 1;
        (is_whole && is_good).then_some(Self { trace_id, span_id, parent_id })
    }

    /// The value of the header by which a worker joins the trace.
    pub fn traceparent(&self) -> [u8; TRACEPARENT_BYTES] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
        write_hex(&self.trace_id.to_be_bytes(), &mut text[3..35]);
        write_hex(&self.span_id.to_be_bytes(), &mut text[36..52]);
        text
    }
}

/// A number of exactly so many lower-case hexadecimal digits.
fn hex(digits: &str, count: usize) -> Option<u128> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != count || !digits.bytes().all(is_hex) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok()
}

/// Two lower-case hexadecimal digits for each byte.
fn write_hex(bytes: &[u8], digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(digits.as_chunks_mut::<2>().0) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(text: &str) -> Option<SpanContext> {
        SpanContext::of_client(text.as_bytes(), 7)
    }

    #[test]
    fn a_trace_goes_on() {
        let context = read(GOOD).expect("it is good");
        assert_eq!(
            (context.trace_id >> 64, context.parent_id),
            (0x0af7_6519_16cd_43dd, 0xb7ad_6b71_6920_3331)
        );
        assert_eq!(context.traceparent(), *b"00-0af7651916cd43dd8448eb211c80319c-0000000000000007-01");
        let other = SpanContext { trace_id: u128::MAX - 0xab, span_id: 0xfedc_ba98_7654_3210, parent_id: 0 };
        let expected = format!("00-{:032x}-{:016x}-01", other.trace_id, other.span_id);
        assert_eq!(other.traceparent(), expected.as_bytes());
        assert_eq!(read(&format!("01{}-more", &GOOD[2..])), Some(context), "a later version");
    }

    #[test]
    fn what_breaks_the_rules_is_no_trace() {
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &GOOD.to_uppercase(),
            &GOOD.replace("00-", "ff-"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            &GOOD.replace("b7ad6b7169203331", "0000000000000000"),
            &GOOD.replace("-01", "-00"),
            &GOOD.replace('-', "_"),
            "00-0af7651916cd43dd8448eb211c80319c0b7ad6b7169203331-01",
            &GOOD.replace("0af", "+af"),
            "é",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
