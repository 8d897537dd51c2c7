//! Other names of models: a request that uses one goes on with the model's own.

use std::borrow::Cow;

use api::error::write_json_string;
use api::peek;
use fleet::snapshot::Aliases;

/// The body as it is relayed: byte for byte, but for the name of a model that is known by another.
pub(crate) fn resolved<'a>(aliases: &Aliases, body: &'a [u8], is_json: bool) -> Cow<'a, [u8]> {
    if aliases.is_empty() || !is_json {
        return Cow::Borrowed(body);
    }
    let Some((span, name)) = peek::model_of(body) else { return Cow::Borrowed(body) };
    let Some(model) = aliases.get(&*name) else { return Cow::Borrowed(body) };
    let mut resolved = Vec::with_capacity(body.len() + model.len());
    resolved.extend_from_slice(&body[..span.start]);
    write_json_string(model, &mut resolved);
    resolved.extend_from_slice(&body[span.end..]);
    Cow::Owned(resolved)
}
