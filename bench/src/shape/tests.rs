//! What the shapes ask, and what their turns share.

use serde_json::Value;

use super::*;

fn source(word: &str, api: Api, name: u64) -> Source {
    let load = Load { api, ..crate::tests::load(word, 1) };
    Source::new(&load, corpus(1), name)
}

fn json(conversation: &Conversation) -> Value {
    serde_json::from_str(&conversation.body("m", 7, false)).expect("JSON")
}

#[test]
fn each_turn_repeats_all_before_it() {
    for api in [Api::Chat, Api::Generate] {
        let mut source = source("multi-turn", api, 1);
        let mut conversation = source.conversation();
        let mut turns = 1;
        loop {
            let before = conversation.said.clone();
            json(&conversation);
            if !source.go_on(&mut conversation, "an \"answer\"\n") {
                break;
            }
            assert!(conversation.said.starts_with(&before));
            turns += 1;
        }
        assert_eq!(turns, CHAT_TURNS);
    }
}

#[test]
fn an_answer_comes_back_as_it_was() {
    let mut source = source("multi-turn", Api::Chat, 1);
    let mut conversation = source.conversation();
    source.go_on(&mut conversation, "an \"answer\"\n");
    assert_eq!(json(&conversation)["messages"][1]["content"], "an \"answer\"\n");
}

#[test]
fn agents_have_the_size_they_are_named_for() {
    for (word, bytes) in [("agent-64k", 65_536), ("agent-512k", 524_288)] {
        let body = source(word, Api::Chat, 1).conversation().body("m", 7, true);
        assert!((bytes..bytes + 400).contains(&body.len()), "{}", body.len());
        serde_json::from_str::<Value>(&body).expect("JSON");
    }
}

#[test]
fn groups_share_their_system_prompt_and_nothing_else() {
    let mut left = source("shared-prefix", Api::Chat, 1);
    let mut right = source("shared-prefix", Api::Chat, 2);
    let system = |source: &mut Source| json(&source.conversation())["messages"][0]["content"].clone();
    let seen: std::collections::HashSet<String> =
        (0..100).flat_map(|_| [system(&mut left), system(&mut right)]).map(|text| text.to_string()).collect();
    assert_eq!(seen.len(), 8);
}
