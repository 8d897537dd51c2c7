//! The tokenizer: pieces of at most four bytes, whose ids are the bytes themselves.
//!
//! Equal texts have equal tokens, and so have equal prefixes up to the last piece; ids turn back into
//! text. A chat is tokenised part by part, so that a conversation's next turn begins with all the tokens
//! of the turn before, the answer included.

/// Most bytes in a token.
pub(crate) const TOKEN_BYTES: usize = 4;

/// Words an answer is made of, each exactly one token.
const WORDS: [&str; 32] = [
    "the ", "and ", "for ", "you ", "not ", "but ", "all ", "any ", "can ", "had ", "her ", "was ", "one ",
    "our ", "out ", "day ", "get ", "has ", "him ", "his ", "how ", "man ", "new ", "now ", "old ", "see ",
    "two ", "way ", "who ", "boy ", "did ", "its ",
];

/// Appends the tokens of `text`.
pub(crate) fn tokenize(text: &str, tokens: &mut Vec<u32>) {
    tokens.reserve(text.len() / TOKEN_BYTES + 1);
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = rest.len().min(TOKEN_BYTES);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let mut piece = [0; TOKEN_BYTES];
        piece[..end].copy_from_slice(&rest.as_bytes()[..end]);
        tokens.push(u32::from_le_bytes(piece));
        rest = &rest[end..];
    }
}

/// The text of `tokens`; bytes that are no UTF-8 are replaced.
pub(crate) fn detokenize(tokens: &[u32]) -> String {
    let bytes: Vec<u8> =
        tokens.iter().flat_map(|token| token.to_le_bytes()).filter(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A number that depends on every token.
pub(crate) fn digest(tokens: &[u32]) -> u64 {
    tokens.iter().fold(0x9e37_79b9_7f4a_7c15, |state, token| mix(state, u64::from(*token)))
}

/// Folds `value` into `state`.
pub(crate) fn mix(state: u64, value: u64) -> u64 {
    let mut mixed = (state ^ value).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^= mixed >> 32;
    mixed = mixed.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 29)
}

/// The answer's word at `index`, for a prompt with this digest.
pub(crate) fn answer_word(prompt_digest: u64, index: usize) -> &'static str {
    let drawn = mix(prompt_digest, index as u64) % WORDS.len() as u64;
    WORDS[drawn as usize]
}

/// The words of an answer at the end of `text`, and where they begin: an answer that another engine began.
pub(crate) fn begun_answer(text: &str) -> (usize, usize) {
    let (mut begin, mut words) = (text.len(), 0);
    while let Some(at) = begin.checked_sub(TOKEN_BYTES)
        && text.get(at..begin).is_some_and(|piece| WORDS.contains(&piece))
    {
        (begin, words) = (at, words + 1);
    }
    (begin, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        tokenize(text, &mut tokens);
        tokens
    }

    #[test]
    fn tokens_turn_back_into_text() {
        for text in ["", "a", "abcd", "abcde", "naïve 日本語 😀!"] {
            assert_eq!(detokenize(&tokens(text)), text);
        }
    }

    #[test]
    fn equal_prefixes_have_equal_tokens() {
        let (short, long) = (tokens("0123456789ab"), tokens("0123456789abXYZ"));
        assert_eq!(short[..], long[..3]);
    }

    #[test]
    fn a_begun_answer_is_found() {
        assert_eq!(begun_answer("Hello:the one "), (6, 2));
        assert_eq!(begun_answer("Hello: "), (7, 0));
        assert_eq!(begun_answer("é: day "), (4, 1));
    }

    #[test]
    fn an_answer_word_is_one_token() {
        let answer: String = (0..100).map(|index| answer_word(7, index)).collect();
        assert_eq!(tokens(&answer).len(), 100);
    }
}
