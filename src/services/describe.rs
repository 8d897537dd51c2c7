//! Asks a worker's information endpoints what it serves.

use bytes::Bytes;
use engine::metadata::Answers;
use engine::metadata::Metadata;
use reqwest::Method;

use crate::control::task::Target;
use crate::services::client::Client;
use crate::services::limits;

/// What a worker says about itself; empty when it says nothing, which keeps nobody from serving it.
pub(crate) async fn describe(client: &Client, target: &Target) -> Metadata {
    for attempt in 1..=limits::DESCRIBE_ATTEMPTS_MAX {
        let metadata = ask(client, target).await;
        if metadata != Metadata::default() || attempt == limits::DESCRIBE_ATTEMPTS_MAX {
            return metadata;
        }
        tokio::time::sleep(limits::DESCRIBE_PAUSE).await;
    }
    Metadata::default()
}

async fn ask(client: &Client, target: &Target) -> Metadata {
    let (models, server_info, model_info, version) = tokio::join!(
        get(client, target, &["/v1/models"]),
        get(client, target, &["/server_info", "/get_server_info"]),
        get(client, target, &["/model_info", "/get_model_info"]),
        get(client, target, &["/version"]),
    );
    Metadata::read(&Answers {
        models: models.as_deref(),
        server_info: server_info.as_deref(),
        model_info: model_info.as_deref(),
        version: version.as_deref(),
    })
}

async fn get(client: &Client, target: &Target, paths: &[&str]) -> Option<Bytes> {
    let answer = client.first_found(&Method::GET, target, paths);
    tokio::time::timeout(limits::DESCRIBE_TIMEOUT, answer).await.ok()?.ok()
}
