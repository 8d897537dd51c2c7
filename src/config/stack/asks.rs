//! What engines are asked for by health checks: something small of each kind.

use crate::control::Inference;

/// Kinds of models.
pub(super) const TYPES: [&str; 8] =
    ["chat", "completion", "embeddings", "rerank", "score", "transcription", "vision", "messages"];

const JSON: &str = "application/json";
const FORM: &str = "multipart/form-data; boundary=ringway-health-check";
/// A tenth of a second of silence: samples of two bytes, so many a second.
const SAMPLES_PER_S: u32 = 16_000;
const SILENCE_BYTES: u32 = SAMPLES_PER_S / 10 * 2;

/// The request for a model of this kind; none if there is no such kind.
pub(super) fn of(kind: &str, model: &str) -> Option<Inference> {
    let name = serde_json::Value::from(model);
    let json = |path: &'static str, rest: &str| Inference {
        path,
        content_type: JSON,
        body: format!("{{\"model\":{name},{rest}}}").into(),
    };
    let hello = "\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"temperature\":0,\"max_tokens\":3";
    Some(match kind {
        "chat" | "vision" => json("/v1/chat/completions", hello),
        "messages" => json("/v1/messages", hello),
        "completion" => json("/v1/completions", "\"prompt\":\"Hello\",\"temperature\":0,\"max_tokens\":3"),
        "embeddings" => json("/v1/embeddings", "\"input\":\"Hello\""),
        "rerank" => json("/v1/rerank", "\"query\":\"Hello\",\"documents\":[\"Test\"]"),
        "score" => json("/v1/score", "\"text_1\":\"Hello\",\"text_2\":\"Test\""),
        "transcription" => Inference {
            path: "/v1/audio/transcriptions",
            content_type: FORM,
            body: transcription(model).into(),
        },
        _ => return None,
    })
}

fn transcription(model: &str) -> Vec<u8> {
    const BOUNDARY: &str = "--ringway-health-check";
    let mut body = format!(
        "{BOUNDARY}\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n\
         {BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"silence.wav\"\r\n\
         content-type: audio/wav\r\n\r\n"
    )
    .into_bytes();
    body.extend(silence());
    body.extend(format!("\r\n{BOUNDARY}--\r\n").bytes());
    body
}

/// Silence as a WAV file.
fn silence() -> Vec<u8> {
    let mut wav = Vec::new();
    wav.extend(b"RIFF");
    wav.extend((36 + SILENCE_BYTES).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16u32.to_le_bytes());
    // PCM, one channel.
    wav.extend([1u16, 1].map(u16::to_le_bytes).concat());
    wav.extend([SAMPLES_PER_S, SAMPLES_PER_S * 2].map(u32::to_le_bytes).concat());
    wav.extend([2u16, 16].map(u16::to_le_bytes).concat());
    wav.extend(b"data");
    wav.extend(SILENCE_BYTES.to_le_bytes());
    wav.resize(wav.len() + SILENCE_BYTES as usize, 0);
    wav
}
