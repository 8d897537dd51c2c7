//! Answers cut at every place and told on by another worker.

use serde_json::Value;
use serde_json::json;
use wire::SseEvents;

use super::*;

const WORDS: [&str; 5] = ["Once ", "upon \\\"a\\\" ", "tim\\u00e9 \\ud83d", "\\ude00 ", "the end."];

/// What an engine streams: a beginning, words, an end, and perhaps a usage.
fn stream(kind: Kind, id: &str, words: &[&str], prompt_tokens: usize) -> Vec<Vec<u8>> {
    let chunk = |choices: &str, usage: &str| {
        format!(
            "data: {{\"id\":\"{id}\",\"object\":\"x\",\"created\":{},\"model\":\"m\",\"choices\":[{choices}]{usage}}}\n\n",
            id.len()
        )
    };
    let choice = |told: &str, reason: &str| {
        format!("{{\"index\":0,{told},\"logprobs\":null,\"finish_reason\":{reason}}}")
    };
    let tell = |text: &str| match kind {
        Kind::Chat => format!("\"delta\":{{\"content\":\"{text}\"}}"),
        Kind::Completion => format!("\"text\":\"{text}\""),
    };
    let mut events = Vec::new();
    if kind == Kind::Chat {
        let begin = choice("\"delta\":{\"role\":\"assistant\",\"content\":\"\"}", "null");
        events.push(chunk(&begin, ""));
    }
    events.extend(words.iter().map(|word| chunk(&choice(&tell(word), "null"), "")));
    events.push(chunk(&choice(&tell(""), "\"stop\""), ""));
    let usage = format!(
        ",\"usage\":{{\"prompt_tokens\":{prompt_tokens},\"completion_tokens\":{},\"total_tokens\":{}}}",
        words.len(),
        prompt_tokens + words.len()
    );
    events.push(chunk("", &usage));
    events.push("data: [DONE]\n\n".to_owned());
    events.into_iter().map(String::into_bytes).collect()
}

/// What a client makes of a stream: its text as a JSON string, ids, roles, finish reasons, usages.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    text: String,
    ids: Vec<String>,
    roles: usize,
    reasons: Vec<String>,
    usages: Vec<Value>,
    done: usize,
}

fn hear(kind: Kind, events: &[u8]) -> Heard {
    let mut heard = Heard::default();
    let mut raw = Vec::new();
    for event in SseEvents::new(events) {
        if &*event.data == b"[DONE]" {
            heard.done += 1;
            continue;
        }
        raw.extend_from_slice(event::read(kind, &event.data).expect("a chunk").text);
        let text = String::from_utf8_lossy(&event.data);
        // Half a surrogate pair is no text to serde: the ends are put together from the raw pieces.
        let chunk: Value =
            serde_json::from_str(&text.replace("\\ud83d", "").replace("\\ude00", "")).expect("JSON");
        heard.ids.push(chunk["id"].as_str().expect("an id").to_owned());
        heard.ids.dedup();
        heard.roles += usize::from(chunk["choices"][0]["delta"]["role"].is_string());
        heard.reasons.extend(chunk["choices"][0]["finish_reason"].as_str().map(str::to_owned));
        heard.usages.extend(Some(chunk["usage"].clone()).filter(|usage| !usage.is_null()));
    }
    heard.text = serde_json::from_slice(&[b"\"", &raw[..], b"\""].concat()).expect("one text");
    heard
}

fn body(kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Chat => json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": true}),
        Kind::Completion => json!({"prompt": "hi", "max_tokens": 50, "stream": true}),
    }
    .to_string()
    .into_bytes()
}

#[test]
fn a_story_cut_anywhere_is_told_to_its_end() {
    for kind in [Kind::Chat, Kind::Completion] {
        let whole = stream(kind, "first", &WORDS, 7);
        let undisturbed = hear(kind, &whole.concat());
        for cut in 0..whole.len() {
            let mut story = Story::new(kind);
            let mut told = whole[..cut].concat();
            story.listen(&told);
            match story.sequel(&body(kind)) {
                Sequel::None => unreachable!("{kind:?} cut at {cut}"),
                // No word had been said: the answer is told from its beginning.
                Sequel::Repeat => {
                    assert!(cut <= usize::from(kind == Kind::Chat), "{kind:?} cut at {cut}");
                    story.retell(&stream(kind, "another", &WORDS, 7).concat(), &mut told);
                    let ids = if cut == 0 { ["another"] } else { ["first"] }.map(str::to_owned).to_vec();
                    let roles = if cut == 0 { 0 } else { undisturbed.roles };
                    assert_eq!(hear(kind, &told), Heard { ids, roles, ..hear(kind, &whole.concat()) });
                }
                Sequel::End(end) => {
                    told.extend_from_slice(&end);
                    let heard = hear(kind, &told);
                    assert_eq!((&heard.text, heard.done), (&undisturbed.text, 1));
                    assert_eq!(heard.reasons, ["stop"]);
                }
                Sequel::Ask(asked) => {
                    let said = cut - usize::from(kind == Kind::Chat);
                    check_asked(kind, &asked, said);
                    let rest = stream(kind, "another", &WORDS[said..], 7 + said);
                    story.retell(&rest.concat(), &mut told);
                    assert_eq!(hear(kind, &told), undisturbed, "{kind:?} cut at {cut}");
                    assert_eq!(told.windows(17).filter(|at| at == b"x-ringway-resumed").count(), 1);
                }
            }
        }
    }
}

/// The request for the rest holds the text so far as the beginning of the answer, and asks for fewer tokens.
fn check_asked(kind: Kind, asked: &[u8], said: usize) {
    let asked = String::from_utf8(asked.to_vec()).expect("UTF-8");
    let text = WORDS[..said].concat();
    match kind {
        Kind::Chat => assert_eq!(
            asked,
            format!(
                "{{\"continue_final_message\":true,\"add_generation_prompt\":false,\"messages\":[{{\"content\":\"hi\",\
                 \"role\":\"user\"}},{{\"role\":\"assistant\",\"content\":\"{text}\"}}],\"model\":\"m\",\"stream\":true}}"
            )
        ),
        Kind::Completion => assert_eq!(
            asked,
            format!("{{\"max_tokens\":{},\"prompt\":\"hi{text}\",\"stream\":true}}", 50 - said)
        ),
    }
}

#[test]
fn a_story_may_change_its_teller_at_every_word() {
    for kind in [Kind::Chat, Kind::Completion] {
        let undisturbed = hear(kind, &stream(kind, "first", &WORDS, 7).concat());
        let mut story = Story::new(kind);
        let mut told = Vec::new();
        let begin = usize::from(kind == Kind::Chat);
        for said in 0..=WORDS.len() {
            let id = format!("teller {said}");
            let events = stream(kind, if said == 0 { "first" } else { &id }, &WORDS[said..], 7 + said);
            let piece = if said == WORDS.len() { events.concat() } else { events[..=begin].concat() };
            if story.resumed() == 0 {
                story.listen(&piece);
                told.extend_from_slice(&piece);
            } else {
                story.retell(&piece, &mut told);
            }
            if said < WORDS.len() {
                assert!(matches!(story.sequel(&body(kind)), Sequel::Ask(_)), "{said}");
            }
        }
        assert_eq!(hear(kind, &told), undisturbed);
    }
}

#[test]
fn an_answer_at_its_limit_is_ended() {
    let mut story = Story::new(Kind::Completion);
    let events = stream(Kind::Completion, "first", &["a", "b"], 1);
    story.listen(&events[..2].concat());
    let Sequel::End(end) = story.sequel(br#"{"prompt":"p","max_tokens":2}"#) else {
        unreachable!("all is said")
    };
    let heard = hear(Kind::Completion, &[events[..2].concat(), end].concat());
    assert_eq!((heard.reasons, heard.done, heard.ids.len()), (vec!["length".to_owned()], 1, 1));
}

#[test]
fn what_cannot_be_continued_is_not() {
    let chat = |more: &str| {
        let body =
            format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}],\"stream\":true{more}}}");
        request::limits(Kind::Chat, body.as_bytes())
    };
    assert!(chat("").is_some());
    for more in [
        ",\"tools\":[{}]",
        ",\"functions\":[{}]",
        ",\"logprobs\":true",
        ",\"top_logprobs\":2",
        ",\"n\":2",
        ",\"regex\":\"a\"",
        ",\"ebnf\":\"a\"",
        ",\"guided_json\":{\"a\":1}",
        ",\"response_format\":{\"type\":\"json_object\"}",
        ",\"response_format\":{}",
        ",\"continue_final_message\":true",
        ",\"add_generation_prompt\":false",
        ",\"audio\":{\"voice\":\"x\"}",
        ",\"input_ids\":[1]",
        ",\"too\\u006cs\":[{}]",
    ] {
        assert!(chat(more).is_none(), "{more}");
    }
    for more in [
        ",\"tools\":[]",
        ",\"tools\":null",
        ",\"logprobs\":false",
        ",\"top_logprobs\":0",
        ",\"n\":1",
        ",\"regex\":null",
        ",\"response_format\":{\"type\":\"text\"}",
        ",\"continue_final_message\":false",
        ",\"max_tokens\":9",
    ] {
        assert!(chat(more).is_some(), "{more}");
    }
    let completion = |body: &str| request::limits(Kind::Completion, body.as_bytes());
    assert!(completion(r#"{"prompt":"a"}"#).is_none(), "how long it may get is not known");
    assert!(completion(r#"{"prompt":["a"],"max_tokens":1}"#).is_none());
    assert!(completion(r#"{"prompt":[1,2],"max_tokens":1}"#).is_none());
    assert!(completion(r#"{"prompt":"a","max_tokens":1,"echo":true}"#).is_none());
    assert!(completion(r#"{"prompt":"a","max_tokens":1,"best_of":2}"#).is_none());
    assert!(request::limits(Kind::Chat, br#"{"messages":[]}"#).is_none());
    assert!(request::limits(Kind::Chat, b"not JSON").is_none());
}

#[test]
fn a_preface_is_over_with_the_first_token() {
    let events = stream(Kind::Chat, "1", &WORDS, 1);
    let mut story = Story::preface(Kind::Chat);
    story.listen(&events[0]);
    assert_eq!((story.has_sequel(), story.is_over()), (true, false));
    assert_eq!(story.sequel(&body(Kind::Chat)), Sequel::Repeat);
    story.retell(&events[..2].concat(), &mut Vec::new());
    assert_eq!((story.has_sequel(), story.is_over()), (false, true));
}

#[test]
fn what_was_told_may_forbid_it_later() {
    for delta in [
        r#"{"tool_calls":[{"index":0}]}"#,
        r#"{"reasoning_content":"hm"}"#,
        r#"{"reasoning":"hm"}"#,
        r#"{"refusal":"no"}"#,
    ] {
        let mut story = Story::new(Kind::Chat);
        let word = r#"data: {"id":"1","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}"#;
        story.listen(format!("{word}\n\n").as_bytes());
        assert!(story.has_sequel());
        story.listen(
            format!("data: {{\"id\":\"1\",\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n").as_bytes(),
        );
        assert!(!story.has_sequel(), "{delta}");
    }
    for event in [
        "data: {\"error\":{}}",
        "data: not JSON",
        "data: {}",
        "data: {\"choices\":[{\"index\":1,\"delta\":{}}]}",
    ] {
        let mut story = Story::new(Kind::Chat);
        story.listen(&stream(Kind::Chat, "1", &WORDS, 1)[..3].concat());
        story.listen(format!("{event}\n\n").as_bytes());
        assert!(!story.has_sequel(), "{event}");
    }
}

#[test]
fn a_role_beside_text_is_taken_out() {
    let told = br#"{"id":"2","choices":[{"index":0,"delta":{"role": "assistant" , "content":"x"}}]}"#;
    let last = br#"{"id":"2","choices":[{"index":0,"delta":{"content":"x", "role":"assistant"}}]}"#;
    for (data, expect) in [
        (&told[..], r#"{"id":"1","choices":[{"index":0,"delta":{ "content":"x"}}]}"#),
        (&last[..], r#"{"id":"1","choices":[{"index":0,"delta":{"content":"x"}}]}"#),
    ] {
        let told = event::read(Kind::Chat, data).expect("a chunk");
        let retold = told.retold(data, b"\"1\"", b"", 0).expect("it tells something");
        assert_eq!(String::from_utf8_lossy(&retold), expect);
    }
}
