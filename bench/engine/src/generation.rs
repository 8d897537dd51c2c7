//! One answer in the making: waits until each token is due and says it.

use std::rc::Rc;
use std::time::Instant;

use monoio::time::{Instant as RuntimeInstant, sleep_until};

use crate::clock;
use crate::engine::{Engine, Ticket};
use crate::scheduler::{Admission, Refusal, Submission};
use crate::token;

/// Answer tokens when a request does not say.
pub(crate) const ANSWER_TOKENS_DEFAULT: usize = 16;

/// An answer that is begun in the prompt: the digest of what comes before it, and how many words there are.
pub(crate) type Begun = (u64, usize);

/// What a request wants generated.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) prompt: Vec<u32>,
    pub(crate) begun: Option<Begun>,
    /// Most tokens to answer with; none leaves it to the engine.
    pub(crate) tokens_max: Option<usize>,
    /// Multiplier of all durations.
    pub(crate) slow_factor: f64,
}

/// Token counts of one or more answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    pub(crate) cached_tokens: usize,
    pub(crate) completion_tokens: usize,
}

/// One answer in the making. Dropped before its end, it is aborted.
#[derive(Debug)]
pub(crate) struct Generation {
    ticket: Option<Ticket>,
    admission: Option<Admission>,
    prompt_digest: u64,
    prompt_tokens: usize,
    /// Words of the answer that stood in the prompt.
    begun_words: usize,
    answer_tokens: usize,
    hits_length: bool,
    said: usize,
    answer: Vec<u32>,
}

// === impl Generation ===

impl Generation {
    pub(crate) fn begin(engine: &Rc<Engine>, wish: Wish) -> Result<Generation, Refusal> {
        let begun = wish.begun.map_or(0, |(_, words)| words);
        let answer_tokens = wish.tokens_max.unwrap_or_else(|| ANSWER_TOKENS_DEFAULT.saturating_sub(begun));
        let prompt_tokens = wish.prompt.len();
        let (prompt_digest, begun_words) = wish.begun.unwrap_or_else(|| (token::digest(&wish.prompt), 0));
        let slow_factor = wish.slow_factor;
        let ticket = engine.submit(Submission { prompt: wish.prompt, answer_tokens, slow_factor })?;
        Ok(Generation {
            ticket: Some(ticket),
            admission: None,
            prompt_digest,
            prompt_tokens,
            begun_words,
            answer_tokens,
            hits_length: wish.tokens_max.is_some(),
            said: 0,
            answer: Vec::new(),
        })
    }

    /// The next word, when it is due; none at the end, which frees the place.
    pub(crate) async fn next(&mut self) -> Option<&'static str> {
        let admission = match self.admission {
            Some(admission) => admission,
            None => self.prefill().await?,
        };
        if self.said == self.answer_tokens {
            if let Some(ticket) = self.ticket.take() {
                ticket.finish(&self.answer);
            }
            return None;
        }
        let nth = u32::try_from(self.said).unwrap_or(u32::MAX);
        wait_until(admission.first_token_at + admission.token_interval.saturating_mul(nth)).await;
        let word = token::answer_word(self.prompt_digest, self.begun_words + self.said);
        token::tokenize(word, &mut self.answer);
        self.said += 1;
        Some(word)
    }

    /// All words at once, when the last is due.
    pub(crate) async fn whole(&mut self) -> String {
        let mut text = String::with_capacity(self.answer_tokens * token::TOKEN_BYTES);
        while let Some(word) = self.next().await {
            text.push_str(word);
        }
        text
    }

    /// Counts up to here.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.admission.map_or(0, |admission| admission.cached_tokens),
            completion_tokens: self.said,
        }
    }

    /// `length` when the request's limit ended the answer, else `stop`.
    pub(crate) fn finish_reason(&self) -> &'static str {
        if self.hits_length { "length" } else { "stop" }
    }

    /// Ids said up to here.
    pub(crate) fn answer(&self) -> &[u32] {
        &self.answer
    }

    async fn prefill(&mut self) -> Option<Admission> {
        let ticket = self.ticket.as_ref()?;
        let admission = ticket.admitted().await;
        wait_until(admission.first_token_at).await;
        ticket.first_token();
        self.admission = Some(admission);
        Some(admission)
    }
}

// === impl Usage ===

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.prompt_tokens += other.prompt_tokens;
        self.cached_tokens += other.cached_tokens;
        self.completion_tokens += other.completion_tokens;
    }
}

async fn wait_until(due: Instant) {
    if due > clock::now() {
        sleep_until(RuntimeInstant::from_std(due)).await;
    }
}
