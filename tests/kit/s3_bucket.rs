//! A bucket of a test, and everything that a test does with it by hand: as the app would.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use rg_common::s3::Client;

use crate::s3_server::{S3Key, S3Server, s3_client};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A bucket of its own on a real server.
pub struct S3Bucket {
    client: Client,
    /// Its name.
    pub name: String,
    /// The server's address.
    pub endpoint: String,
    /// The key that the app uses.
    pub key: S3Key,
}

impl S3Bucket {
    /// A new, empty bucket.
    pub fn new(server: &S3Server) -> S3Bucket {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        S3Bucket::create(server, &format!("test-{}-{number}", std::process::id()))
    }

    /// A new, empty bucket of that name.
    pub fn create(server: &S3Server, name: &str) -> S3Bucket {
        let bucket = S3Bucket::missing(server, name);
        let call = bucket.client.sdk().create_bucket().bucket(&bucket.name);
        bucket.client.call(call.send()).expect("a bucket");
        bucket
    }

    /// A bucket that has not been made.
    pub fn missing(server: &S3Server, name: &str) -> S3Bucket {
        S3Bucket::at(&server.endpoint(), &server.admin, name)
    }

    /// A bucket of any server.
    pub fn at(endpoint: &str, key: &S3Key, name: &str) -> S3Bucket {
        S3Bucket {
            client: s3_client(endpoint, key),
            name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            key: key.clone(),
        }
    }

    /// The lines of an env file that name it: `S3_ENDPOINT`, `S3_BUCKET`, `S3_KEY`, `S3_SECRET`.
    pub fn env(&self) -> String {
        format!(
            "S3_ENDPOINT={}\nS3_BUCKET={}\nS3_KEY={}\nS3_SECRET={}\n",
            self.endpoint, self.name, self.key.access, self.key.secret
        )
    }

    /// The table of `rg.toml` that reads them, for environment `app`.
    pub fn toml(&self, dataset: &str) -> String {
        format!(
            "[environments.app.buckets.{dataset}]\nendpoint = \"$S3_ENDPOINT\"\nname = \"$S3_BUCKET\"\n\
             access_key = \"$S3_KEY\"\nsecret_key = \"$S3_SECRET\"\n"
        )
    }

    /// Puts an object.
    pub fn put(&self, key: &str, content: impl Into<Vec<u8>>) {
        let call = self.client.sdk().put_object().bucket(&self.name).key(key);
        let call = call.body(content.into().into());
        self.client
            .call(call.send())
            .unwrap_or_else(|e| panic!("put {key}: {e}"));
    }

    /// Puts an object with a content type and one piece of metadata, `note`.
    pub fn put_with(&self, key: &str, content: impl Into<Vec<u8>>, content_type: &str, note: &str) {
        let call = self.client.sdk().put_object().bucket(&self.name).key(key);
        let call = call.content_type(content_type).metadata("note", note);
        let call = call.body(content.into().into());
        self.client
            .call(call.send())
            .unwrap_or_else(|e| panic!("put {key}: {e}"));
    }

    /// Deletes an object.
    pub fn delete(&self, key: &str) {
        let call = self
            .client
            .sdk()
            .delete_object()
            .bucket(&self.name)
            .key(key);
        self.client
            .call(call.send())
            .unwrap_or_else(|e| panic!("delete {key}: {e}"));
    }

    /// An object's content.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let call = self.client.sdk().get_object().bucket(&self.name).key(key);
        let answer = self.client.call(call.send()).ok()?;
        let body = self
            .client
            .wait(answer.body.collect())
            .expect("not stopped");
        Some(body.expect("the body").to_vec())
    }

    /// An object's content type and its `note`.
    pub fn headers(&self, key: &str) -> (Option<String>, Option<String>) {
        let call = self.client.sdk().head_object().bucket(&self.name).key(key);
        let answer = self
            .client
            .call(call.send())
            .unwrap_or_else(|e| panic!("head {key}: {e}"));
        let note = answer.metadata().and_then(|all| all.get("note")).cloned();
        (answer.content_type().map(str::to_owned), note)
    }

    /// Every object with its content, by key.
    pub fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let keys = self.keys();
        let read = |key: String| {
            let content = self.get(&key).unwrap_or_else(|| panic!("{key} is gone"));
            (key, content)
        };
        keys.into_iter().map(read).collect()
    }

    /// Every key, sorted.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut token = None;
        loop {
            let call = self.client.sdk().list_objects_v2().bucket(&self.name);
            let call = call.set_continuation_token(token);
            let page = self
                .client
                .call(call.send())
                .unwrap_or_else(|e| panic!("list: {e}"));
            keys.extend(
                page.contents()
                    .iter()
                    .filter_map(|o| o.key().map(str::to_owned)),
            );
            token = page.next_continuation_token().map(str::to_owned);
            if token.is_none() {
                break;
            }
        }
        keys.sort();
        keys
    }
}
