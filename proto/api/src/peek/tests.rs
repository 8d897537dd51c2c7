//! Bodies of every endpoint, and what the peek must find in them.

use super::*;

fn prompt(shape: PromptShape, body: &str) -> Vec<String> {
    let mut spans = PromptSpans::default();
    peek(shape, body.as_bytes(), &[], &mut spans).expect("accepted");
    spans.parts(body.as_bytes()).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

fn refused(body: &[u8]) -> ApiError {
    peek(PromptShape::Messages, body, &[], &mut PromptSpans::default()).expect_err("refused")
}

#[test]
fn chat_yields_system_user_and_tool_texts_in_order() {
    let body = r#"{"model":"m","messages":[
        {"role":"system","content":"be \"brief\""},
        {"role":"user","content":[{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"data:x","detail":"low"}}]},
        {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},
        {"role":"tool","tool_call_id":"c1","content":"42"}]}"#;
    assert_eq!(prompt(PromptShape::Messages, body), [r#"be \"brief\""#, "look", "data:x", "f", "{}", "42"]);
}

#[test]
fn tools_and_system_prompt_come_first_wherever_they_stand() {
    let body = r#"{"messages":[{"role":"user","content":"u"}],"system":"s","tools":[{"a":1}]}"#;
    assert_eq!(prompt(PromptShape::Messages, body), ["s", r#"[{"a":1}]"#, "u"]);
}

#[test]
fn prompts_may_be_text_texts_or_token_ids() {
    assert_eq!(prompt(PromptShape::Prompt, r#"{"prompt":"a"}"#), ["a"]);
    assert_eq!(prompt(PromptShape::Prompt, r#"{"prompt":["a","b"]}"#), ["a", "b"]);
    assert_eq!(prompt(PromptShape::Prompt, r#"{"prompt":[1,2, 3]}"#), ["1,2, 3"]);
    assert_eq!(prompt(PromptShape::Generate, r#"{"input_ids":[[1,2],[3]]}"#), ["1,2", "3"]);
    assert_eq!(prompt(PromptShape::Generate, r#"{"text":["x"],"sampling_params":{"stop":["y"]}}"#), ["x"]);
    assert_eq!(prompt(PromptShape::Prompt, r#"{"prompt":[]}"#), Vec::<String>::new());
}

#[test]
fn a_conversation_extends_its_own_prefix() {
    let first = prompt(PromptShape::Messages, r#"{"messages":[{"role":"user","content":"a"}]}"#).concat();
    let second = prompt(
        PromptShape::Messages,
        r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
    );
    assert!(second.concat().starts_with(&first));
}

#[test]
fn model_and_stream_are_found_with_escapes_and_in_any_place() {
    let mut spans = PromptSpans::default();
    let body = br#"{"a":{"model":"inner","stream":true},"mod\u0065l":"caf\u00e9","stream":true}"#;
    let peeked = peek(PromptShape::Messages, body, &[], &mut spans).expect("accepted");
    assert_eq!(peeked.model.as_deref(), Some("café"));
    assert!(peeked.stream);
}

#[test]
fn an_opaque_body_is_read_for_its_model_alone() {
    let mut spans = PromptSpans::default();
    let body = br#"{"model":"m","input":"text to speak"}"#;
    let peeked = peek(PromptShape::Opaque, body, &[], &mut spans).expect("accepted");
    assert_eq!(peeked.model.as_deref(), Some("m"));
    assert_eq!(spans.parts(body).count(), 0);
}

#[test]
fn bodies_that_are_not_one_json_object_are_refused() {
    for body in ["", " ", "[]", "1", "null", "\"x\"", "{", "{}x", "{\"a\":}", "{\"a\":1,}", "nul"] {
        assert_eq!(refused(body.as_bytes()).code, ErrorCode::JsonParse, "{body}");
    }
    assert_eq!(refused(b"{\"a\":\"\xff\"}").message, "request body is not valid UTF-8");
}

#[test]
fn wrongly_typed_fields_name_themselves() {
    for model in ["1", "[]", "{}", "true"] {
        let error = refused(format!("{{\"model\":{model}}}").as_bytes());
        assert_eq!((error.code, error.param), (ErrorCode::InvalidField, Some("model")));
    }
    for stream in ["1", "\"true\"", "[]"] {
        let error = refused(format!("{{\"stream\":{stream}}}").as_bytes());
        assert_eq!((error.code, error.param), (ErrorCode::InvalidField, Some("stream")));
    }
}

#[test]
fn a_form_names_its_model_in_a_field() {
    let mut spans = PromptSpans::default();
    let form = b"--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--x\r\n\xff\x00";
    assert_eq!(peek_opaque(form, &mut spans).model.as_deref(), Some("whisper-1"));
    assert_eq!(peek_opaque(b"name=\"model\"\r\n\r\nno end", &mut spans).model, None);
    let typed = b"; name=\"model\"\r\nContent-Type: text/plain\r\n\r\nw\r\n--x";
    assert_eq!(peek_opaque(typed, &mut spans).model.as_deref(), Some("w"));
    assert_eq!(peek_opaque(b"", &mut spans).model, None);
}

#[test]
fn a_body_of_tiny_strings_costs_a_bounded_list() {
    let mut spans = PromptSpans::default();
    let many = format!("{{\"prompt\":[{}\"x\"]}}", "\"\",\"a\",".repeat(100_000));
    peek(PromptShape::Prompt, many.as_bytes(), &[], &mut spans).expect("accepted");
    assert_eq!(spans.parts(many.as_bytes()).count(), SPANS_MAX);
    let long = format!("{{\"prompt\":[\"{0}\",\"{0}\",\"{0}\"]}}", "y".repeat(PROMPT_BYTES_MAX / 2));
    peek(PromptShape::Prompt, long.as_bytes(), &[], &mut spans).expect("accepted");
    assert_eq!(spans.parts(long.as_bytes()).count(), 2);
}

#[test]
fn fields_are_found_at_the_top_only() {
    let names = ["user", "n", "absent", "nothing", "list"].map(str::to_owned);
    let body =
        br#"{"messages":[{"user":"inner"}], "user" : "a\"b\u00e9" ,"n": 12,"nothing":null,"list":[1, 2]}"#;
    let mut spans = PromptSpans::default();
    peek(PromptShape::Messages, body, &names, &mut spans).expect("accepted");
    let found: Vec<_> = (0..6).map(|at| spans.field(at, body)).collect();
    let expected: [Option<&[u8]>; 6] =
        [Some("a\"b\u{e9}".as_bytes()), Some(b"12"), None, None, Some(b"[1, 2]"), None];
    assert_eq!(found, expected);
    for (body, expected) in [
        (&b"{}"[..], None),
        (br#"{"user":"a\nb","user":"c"}"#, Some(&b"c"[..])),
        (br#"{"user":"a\nb","user":null}"#, None),
        (br#"{"user":"\ud800"}"#, Some(br"\ud800")),
    ] {
        peek(PromptShape::Messages, body, &names, &mut spans).expect("accepted");
        assert_eq!(spans.field(0, body), expected, "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn the_bound_on_an_answer_is_found_under_all_its_names() {
    for (body, expect) in [
        (r#"{"max_tokens":12}"#, Some(12)),
        (r#"{"n":1, "max_completion_tokens" : 7 }"#, Some(7)),
        (r#"{"text":"a","sampling_params":{"max_new_tokens":3}}"#, Some(3)),
        (r#"{"max_output_tokens":9}"#, Some(9)),
        (r#"{"tools":[{"max_tokens":{"type":"integer"}}],"max_tokens":5}"#, Some(5)),
        (r#"{"prompt":"say \"max_tokens\":4"}"#, None),
        (r#"{"max_tokens":null}"#, None),
        (r#"{"max_tokens":-1}"#, None),
        (r#"{"max_tokens":99999999999}"#, None),
        (r#"{"max_tokens""#, None),
        ("", None),
    ] {
        assert_eq!(answer_tokens_max(body.as_bytes()), expect, "{body}");
    }
}

#[test]
fn what_was_used_is_read_from_the_end_of_an_answer() {
    let long = format!(r#"{{"total_tokens":1,"text":"{}"}}"#, "x".repeat(5_000));
    for (body, expect) in [
        (r#"{"usage":{"prompt_tokens":3,"total_tokens":10,"completion_tokens":7}}"#, Some(Used::Total(10))),
        (r#"{"text":"a","meta_info":{"prompt_tokens":3,"completion_tokens": 7}}"#, Some(Used::Answer(7))),
        (r#"{"usage":{"input_tokens":3,"output_tokens":8}}"#, Some(Used::Answer(8))),
        (r#"{"usage":{"total_tokens":null}}"#, None),
        (&long, None),
        ("", None),
    ] {
        assert_eq!(used(body.as_bytes()), expect, "{body}");
    }
}

#[test]
fn an_answer_says_what_it_used() {
    let usage = |members: &str| used(format!("{{\"choices\":[],\"usage\":{{{members}}}}}").as_bytes());
    assert_eq!(usage(r#""prompt_tokens":3,"completion_tokens":4,"total_tokens" : 7"#), Some(Used::Total(7)));
    assert_eq!(usage(r#""total_tokens":7,"prompt_tokens":3"#), Some(Used::Total(7)));
    assert_eq!(usage(r#""input_tokens":3,"output_tokens":4"#), Some(Used::Answer(4)));
    assert_eq!(usage(r#""total_tokens":"7","completion_tokens":4"#), Some(Used::Answer(4)));
    assert_eq!(usage(r#""subtotal_tokens":7,"prompt_tokens":3"#), None);
    assert_eq!(usage(r#""total_tokens":99999999999"#), None);
    // What the text says of tokens is not what the engine says.
    let said = format!(r#"{{"text":"\"total_tokens\": 9","{}usage":{{"total_tokens":1}}}}"#, "x".repeat(10));
    assert_eq!(used(said.as_bytes()), Some(Used::Total(1)));
    // Only the end is looked at.
    let far = format!(r#"{{"usage":{{"total_tokens":1}},"text":"{}"}}"#, "x".repeat(USAGE_BYTES_MAX));
    assert_eq!(used(far.as_bytes()), None);
}
