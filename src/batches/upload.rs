//! An upload: the form is taken apart, the file written, and then known.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use fleet::batch::BatchRequest;
use fleet::batch::FILE_BYTES_MAX;

use super::Service;
use super::calls::Refusal;
use super::limits;
use super::multipart;
use super::record::FileRecord;
use super::record::PURPOSE_UNKNOWN;
use super::record::PURPOSES;
use super::record::new_id;
use super::unix_s;

/// What a form holds.
#[derive(Debug, PartialEq, Eq)]
struct Form {
    purpose: String,
    filename: String,
    content: Bytes,
}

impl Form {
    fn parse(content_type: Option<&str>, body: &Bytes) -> Result<Self, Refusal> {
        let boundary = content_type.and_then(multipart::boundary).ok_or_else(|| {
            Refusal::new(400, "invalid_request", "an upload is multipart/form-data with a boundary")
        })?;
        let parts = multipart::parts(body, &boundary).map_err(|why| {
            Refusal::new(400, "invalid_request", format!("the multipart/form-data is malformed: {why}"))
        })?;
        let mut purpose = None;
        let mut file = None;
        for part in parts {
            let is_second = match part.name.as_str() {
                "purpose" => purpose.replace(part).is_some(),
                "file" => file.replace(part).is_some(),
                name if name.starts_with("expires_after") => {
                    return Err(Refusal::field("expires_after", "`expires_after` is not supported yet"));
                }
                _ => false,
            };
            if is_second {
                return Err(Refusal::new(400, "invalid_request", "the form has a field twice"));
            }
        }
        let file = file.ok_or_else(|| Refusal::field("file", "Missing required parameter 'file'"))?;
        if file.content.len() > FILE_BYTES_MAX {
            let message = format!("a file has {FILE_BYTES_MAX} bytes at most");
            return Err(Refusal::new(413, "file_too_large", message));
        }
        let purpose = purpose.map_or(Ok(PURPOSE_UNKNOWN), |part| {
            let value = body.get(part.content).filter(|value| value.len() <= limits::FIELD_BYTES_MAX);
            let named = value.and_then(|value| PURPOSES.into_iter().find(|known| known.as_bytes() == value));
            named.ok_or_else(|| {
                Refusal::field("purpose", format!("`purpose` must be one of {}", PURPOSES.join(", ")))
            })
        })?;
        let filename = file.filename.filter(|name| !name.is_empty()).unwrap_or_else(|| "file".to_owned());
        if filename.len() > limits::FILE_NAME_BYTES_MAX {
            let message = format!("the file's name has {} bytes at most", limits::FILE_NAME_BYTES_MAX);
            return Err(Refusal::field("file", message));
        }
        Ok(Self { purpose: purpose.to_owned(), filename, content: body.slice(file.content) })
    }
}

/// Takes a file.
///
/// # Errors
/// When it is no form, or there is no room.
pub(super) async fn upload(service: &Rc<Service>, request: BatchRequest) -> Result<FileRecord, Refusal> {
    let BatchRequest { content_type, owner, body, room: _room, .. } = request;
    let bytes = body.len() as u64;
    service.store.ask(move |database| database.room(bytes)).await??;
    let busy = || Refusal::new(503, "storage_failed", "files cannot be stored now; try again");
    let _place = Arc::clone(&service.uploads).acquire_owned().await.map_err(|_| busy())?;
    let (folder, id) = (service.folder.clone(), new_id("file-"));
    // A search through the whole body, and a disk: neither is for this thread.
    let stored = tokio::task::spawn_blocking(move || {
        let form = Form::parse(content_type.as_deref(), &body)?;
        folder.write(&id, &form.content).map_err(|error| Refusal::disk(&error))?;
        Ok::<_, Refusal>(FileRecord {
            id,
            owner: owner.into(),
            filename: form.filename,
            purpose: form.purpose,
            bytes: form.content.len() as u64,
            created_at: unix_s(),
        })
    });
    let file = stored.await.map_err(|_| busy())??;
    let added = file.clone();
    let added = service.store.ask(move |database| database.add_file(&added)).await;
    if let Ok(Ok(())) = added {
        return Ok(file);
    }
    let (folder, id) = (service.folder.clone(), file.id);
    // Whatever is left of it is swept away at a start.
    let _ = tokio::task::spawn_blocking(move || folder.remove(&id)).await;
    match added? {
        Ok(()) => Err(busy()),
        Err(full) => Err(full.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: &[(&str, &str)]) -> Bytes {
        let parts: String = fields
            .iter()
            .map(|(disposition, value)| {
                format!("--B\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n")
            })
            .collect();
        format!("{parts}--B--\r\n").into()
    }

    const TYPE: Option<&str> = Some("multipart/form-data; boundary=B");
    const FILE: (&str, &str) = ("name=\"file\"; filename=\"in.jsonl\"", "{}\n");

    #[test]
    fn a_form_has_a_file_and_may_have_a_purpose() {
        let parse = |fields: &[(&str, &str)]| Form::parse(TYPE, &form(fields)).expect("a good form");
        let parsed = parse(&[("name=purpose", "batch"), FILE]);
        assert_eq!(
            (&*parsed.purpose, &*parsed.filename, &*parsed.content),
            ("batch", "in.jsonl", &b"{}\n"[..])
        );
        assert_eq!(parse(&[FILE]).purpose, "unknown");
        assert_eq!(parse(&[("name=file", ""), ("name=other", "x")]).filename, "file");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |content_type, fields: &[(&str, &str)]| {
            format!("{:?}", Form::parse(content_type, &form(fields)).expect_err("refused"))
        };
        assert!(refused(None, &[FILE]).contains("boundary"));
        assert!(refused(Some("application/json"), &[FILE]).contains("boundary"));
        assert!(refused(Some("multipart/form-data; boundary=C"), &[FILE]).contains("malformed"));
        assert!(refused(TYPE, &[("name=purpose", "batch")]).contains("'file'"));
        assert!(refused(TYPE, &[("name=purpose", "fun"), FILE]).contains("purpose"));
        assert!(refused(TYPE, &[FILE, FILE]).contains("twice"));
        assert!(
            refused(TYPE, &[("name=\"expires_after[anchor]\"", "created_at"), FILE])
                .contains("expires_after")
        );
        let long = format!("name=file; filename={}", "x".repeat(limits::FILE_NAME_BYTES_MAX + 1));
        assert!(refused(TYPE, &[(&long, "")]).contains("name"));
    }
}
