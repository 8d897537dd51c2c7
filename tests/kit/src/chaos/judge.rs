//! What a prompt must be answered with, and whether it was.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::chaos::Outcome;
use crate::client::Client;
use crate::client::Request;
use crate::client::Response;

/// Words of an answer: enough that no two prompts are answered alike.
const ANSWER_TOKENS: usize = 24;
/// Threads that ask for the right answers.
const ASKERS: usize = 16;
const PATH: &str = "/v1/chat/completions";

/// The right answers.
pub(crate) struct Judge {
    answers: Vec<String>,
    tokens: usize,
    /// Pause of a client between two events of a stream.
    pause: Duration,
}

/// What one answer was.
enum Verdict {
    /// The request's own, and all of it.
    Complete,
    /// An error that a client can tell from an answer.
    Error(String),
}

/// What must not be.
type Wrong = String;

impl Judge {
    /// Asks an engine directly what it says to each prompt.
    #[track_caller]
    pub(super) fn ask(engine: SocketAddr, prompts: usize) -> Judge {
        Judge::ask_for(engine, prompts, ANSWER_TOKENS)
    }

    /// As [`Judge::ask`], for answers of so many words.
    #[track_caller]
    pub(crate) fn ask_for(engine: SocketAddr, prompts: usize, tokens: usize) -> Judge {
        // Side by side: an engine takes its time for each.
        let share = prompts.div_ceil(ASKERS);
        let answers: Vec<String> = thread::scope(|scope| {
            let ask = |asker: usize| {
                let mut client = Client::connect(engine);
                let mine = (asker * share).min(prompts)..((asker + 1) * share).min(prompts);
                mine.map(|prompt| {
                    let response = client.ask(&request(prompt, tokens, false));
                    assert_eq!(response.status, 200, "{response:?}");
                    text(&response.json()["choices"][0]["message"]).to_owned()
                })
                .collect::<Vec<String>>()
            };
            let askers: Vec<_> = (0..ASKERS).map(|asker| scope.spawn(move || ask(asker))).collect();
            askers.into_iter().flat_map(|asker| asker.join().expect("an engine answers")).collect()
        });
        let mut distinct = answers.clone();
        distinct.sort();
        distinct.dedup();
        assert!(
            distinct.len() == prompts && !distinct[0].is_empty(),
            "every prompt has an answer of its own"
        );
        Judge { answers, tokens, pause: Duration::ZERO }
    }

    /// Has its clients read slowly.
    pub(crate) fn unhurried(self, pause: Duration) -> Judge {
        Judge { pause, ..self }
    }

    /// The request for a prompt.
    pub(crate) fn request(&self, prompt: usize, is_stream: bool) -> Request {
        request(prompt, self.tokens, is_stream)
    }

    /// Sends a request over `kept`, or a new connection if there is none, and notes in `outcome` what comes back.
    pub(crate) fn exchange(
        &self,
        kept: &mut Option<Client>,
        addr: SocketAddr,
        prompt: usize,
        is_stream: bool,
        outcome: &mut Outcome,
    ) {
        let mut client = kept.take().unwrap_or_else(|| Client::connect(addr));
        let verdict =
            if is_stream { self.stream(&mut client, prompt) } else { self.whole(&mut client, prompt) };
        match verdict {
            Ok((Verdict::Complete, lives_on)) => {
                outcome.complete += 1;
                *kept = lives_on.then_some(client);
            }
            Ok((Verdict::Error(code), lives_on)) => {
                *outcome.errors.entry(code).or_default() += 1;
                *kept = lives_on.then_some(client);
            }
            Err(wrong) => outcome.wrong.push(format!("prompt {prompt}, stream {is_stream}: {wrong}")),
        }
    }

    /// A request without streaming; whether its connection lives on stands beside the verdict.
    fn whole(&self, client: &mut Client, prompt: usize) -> Result<(Verdict, bool), Wrong> {
        let response = client.try_ask(&self.request(prompt, false)).map_err(|error| cut(&error))?;
        let lives_on = response.headers.get("connection") != Some("close");
        if response.status != 200 {
            return clear_error(&response).map(|verdict| (verdict, lives_on));
        }
        let body: Value =
            serde_json::from_slice(&response.body).map_err(|error| format!("not JSON: {error}"))?;
        self.compare(prompt, text(&body["choices"][0]["message"]))?;
        Ok((Verdict::Complete, lives_on))
    }

    fn stream(&self, client: &mut Client, prompt: usize) -> Result<(Verdict, bool), Wrong> {
        client.try_send(&self.request(prompt, true)).map_err(|error| cut(&error))?;
        let (status, headers) = client.try_head().map_err(|error| cut(&error))?;
        let lives_on = headers.get("connection") != Some("close");
        if status != 200 {
            let body = client.try_rest().map_err(|error| cut(&error))?;
            return clear_error(&Response { status, headers, body }).map(|verdict| (verdict, lives_on));
        }
        let mut answer = String::new();
        let mut error = None;
        let mut is_finished = false;
        let mut is_done = false;
        while let Some(event) = client.try_event().map_err(|error| cut(&error))? {
            if !self.pause.is_zero() {
                thread::sleep(self.pause);
            }
            // A comment: the gateway says that another worker took over.
            let Some(event) = event.lines().find(|line| !line.starts_with(':')) else { continue };
            let data = event.strip_prefix("data: ").ok_or_else(|| format!("no data: {event:?}"))?;
            if is_done {
                return Err(format!("an event after the end mark: {data}"));
            }
            if data == "[DONE]" {
                is_done = true;
                continue;
            }
            let data: Value =
                serde_json::from_str(data).map_err(|error| format!("not JSON: {error}: {data}"))?;
            if let Some(code) = data["error"]["code"].as_str() {
                error = Some(code.to_owned());
                continue;
            }
            answer.push_str(text(&data["choices"][0]["delta"]));
            is_finished |= data["choices"][0]["finish_reason"].is_string();
        }
        match error {
            _ if !is_done => Err("a stream without its end mark".to_owned()),
            // The gateway gives such a connection up.
            Some(code) if self.answers[prompt].starts_with(&answer) => {
                Ok((Verdict::Error(format!("stream {code}")), false))
            }
            Some(_) => Err(format!("not the beginning of its answer: {answer:?}")),
            None if !is_finished => Err(format!("cut without a word after {answer:?}")),
            None => self.compare(prompt, &answer).map(|()| (Verdict::Complete, lives_on)),
        }
    }

    fn compare(&self, prompt: usize, answer: &str) -> Result<(), Wrong> {
        let expect = &self.answers[prompt];
        if answer == expect { Ok(()) } else { Err(format!("answered {answer:?} instead of {expect:?}")) }
    }
}

fn request(prompt: usize, tokens: usize, is_stream: bool) -> Request {
    let body = json!({
        "model": "sim",
        "messages": [{"role": "user", "content": format!("Prompt number {prompt}: what do you say to it?")}],
        "max_tokens": tokens,
        "stream": is_stream,
    });
    Request::json(PATH, body.to_string())
}

fn text(message: &Value) -> &str {
    message["content"].as_str().unwrap_or_default()
}

fn cut(error: &io::Error) -> Wrong {
    format!("cut: {error}")
}

fn clear_error(response: &Response) -> Result<Verdict, Wrong> {
    match response.error_code() {
        Some(code) if response.status >= 500 || matches!(response.status, 408 | 429) => {
            Ok(Verdict::Error(format!("{} {code}", response.status)))
        }
        // A worker's own error, relayed as it is.
        None if response.text().contains("SimulatedError") => {
            Ok(Verdict::Error(format!("{} of a worker", response.status)))
        }
        _ => Err(format!("unclear: {} {}", response.status, response.text())),
    }
}
