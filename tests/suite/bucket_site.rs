//! A place with buckets of its own on a shared server, and a client to put things there behind the
//! tool's back.

use std::sync::atomic::{AtomicU32, Ordering};

use rg_common::s3::{Client, Credentials, S3Config};
use rg_common::secret::Secret;
use rg_tests::{JuiceFs, Output, S3Key, S3Server, Sandbox, SeaweedFs, sandbox};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A bucket of an environment: the table's last word and what stands in it.
pub struct Declared<'a> {
    pub word: &'a str,
    pub server: &'a S3Server,
    pub bucket: &'a str,
    pub settings: &'a str,
}

/// The server of that name in the suite's table.
pub fn server(name: &str) -> &'static S3Server {
    match name {
        "SeaweedFS" => SeaweedFs::shared(),
        "JuiceFS" => JuiceFs::shared(),
        _ => panic!("no server {name}"),
    }
}

/// A bucket name that no other test uses; what is made of it goes when the test ends, because a
/// server has room for so many buckets only.
pub fn fresh(server: &'static S3Server, word: &str) -> Fresh {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Fresh {
        server,
        name: format!("rg-{word}-{number}"),
    }
}

/// A bucket of one test.
pub struct Fresh {
    server: &'static S3Server,
    name: String,
}

impl std::ops::Deref for Fresh {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl std::fmt::Display for Fresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl From<&Fresh> for String {
    fn from(fresh: &Fresh) -> String {
        fresh.name.clone()
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        behind(self.server).remove(&self.name);
    }
}

/// What a tool said on standard output.
pub trait Shows {
    /// Fails unless it contains these words.
    fn shows(self, words: &str) -> Self;
}

impl Shows for Output {
    #[track_caller]
    fn shows(self, words: &str) -> Output {
        assert!(self.out().contains(words), "wanted {words:?}: {self:?}");
        self
    }
}

/// A sandbox whose `rg.toml` declares these buckets in `production`, with the admin's keys.
pub fn place(buckets: &[Declared]) -> Sandbox {
    let place = sandbox!();
    declare(&place, buckets, &buckets[0].server.admin);
    place
}

/// Writes `rg.toml` anew.
pub fn declare(place: &Sandbox, buckets: &[Declared], key: &S3Key) {
    place.write(
        "env",
        format!("KEY={}\nSECRET={}\n", key.access, key.secret),
    );
    let mut toml = "[stores.local]\nurl = \"file://{root}/store\"\n[environments.production]\nenv_file = \"{root}/env\"\n".to_owned();
    for declared in buckets {
        toml.push_str(&format!(
            "[environments.production.buckets.{}]\nendpoint = \"{}\"\nname = \"{}\"\naccess_key = \"$KEY\"\nsecret_key = \"$SECRET\"\n{}\n",
            declared.word, declared.server.endpoint(), declared.bucket, declared.settings
        ));
    }
    place.config(&toml);
}

/// One bucket, made by `apply` and empty.
pub fn made(server: &'static S3Server, settings: &str) -> (Sandbox, Fresh) {
    let bucket = fresh(server, "made");
    let place = place(&[Declared {
        word: "files",
        server,
        bucket: &bucket,
        settings,
    }]);
    place.run("rg-bucket", ["apply", "--yes"]).ok();
    (place, bucket)
}

/// `rg-bucket … --json`, whatever its exit code.
pub fn json(place: &Sandbox, args: &[&str]) -> (i32, serde_json::Value) {
    let output: Output = place.run("rg-bucket", args.iter().copied().chain(["--json"]));
    (output.code(), output.json())
}

/// A client with the admin's key, and the runtime that it lives on.
pub struct Behind {
    pub client: Client,
    _network: tokio::runtime::Runtime,
}

/// Speaks to a server behind the tool's back.
pub fn behind(server: &S3Server) -> Behind {
    let network = tokio::runtime::Runtime::new().expect("a runtime");
    let keys = Credentials::new(
        Secret::new(&*server.admin.access),
        Secret::new(&*server.admin.secret),
        "the suite",
    );
    let config = S3Config {
        endpoint: Some(server.endpoint()),
        region: "us-east-1".into(),
        path_style: None,
        credentials: Some(keys),
    };
    let client = Client::new(network.handle(), &config).expect("a client");
    Behind {
        client,
        _network: network,
    }
}

impl Behind {
    /// Puts an object.
    pub fn put(&self, bucket: &str, key: &str, body: &[u8]) {
        let call = self
            .client
            .sdk()
            .put_object()
            .bucket(bucket)
            .key(key)
            .body(body.to_vec().into());
        self.client
            .call(call.send())
            .unwrap_or_else(|e| panic!("cannot put {key}: {e}"));
    }

    /// The bytes of an object; none when it is not there.
    pub fn get(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        let got = self
            .client
            .call(
                self.client
                    .sdk()
                    .get_object()
                    .bucket(bucket)
                    .key(key)
                    .send(),
            )
            .ok()?;
        let body = self
            .client
            .wait(got.body.collect())
            .expect("not stopped")
            .expect("a body");
        Some(body.into_bytes().to_vec())
    }

    /// All keys, sorted.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let listed = self
            .client
            .call(self.client.sdk().list_objects_v2().bucket(bucket).send());
        let listed = listed.unwrap_or_else(|e| panic!("cannot list {bucket}: {e}"));
        let mut keys: Vec<String> = listed
            .contents()
            .iter()
            .filter_map(|o| o.key())
            .map(str::to_owned)
            .collect();
        keys.sort();
        keys
    }

    /// Begins an upload and leaves it.
    pub fn abandon_upload(&self, bucket: &str, key: &str, bytes: usize) {
        let sdk = self.client.sdk();
        let begun = self
            .client
            .call(sdk.create_multipart_upload().bucket(bucket).key(key).send())
            .expect("an upload");
        let id = begun.upload_id().expect("its id").to_owned();
        let part = sdk
            .upload_part()
            .bucket(bucket)
            .key(key)
            .upload_id(id)
            .part_number(1)
            .body(vec![7; bytes].into());
        self.client.call(part.send()).expect("a part");
    }

    /// How many uploads are open.
    pub fn open_uploads(&self, bucket: &str) -> usize {
        let listed = self.client.call(
            self.client
                .sdk()
                .list_multipart_uploads()
                .bucket(bucket)
                .send(),
        );
        listed.expect("the uploads").uploads().len()
    }

    /// Puts a policy.
    pub fn policy(&self, bucket: &str, statements: serde_json::Value) {
        let document =
            serde_json::json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
        let call = self
            .client
            .sdk()
            .put_bucket_policy()
            .bucket(bucket)
            .policy(document);
        self.client
            .call(call.send())
            .unwrap_or_else(|e| panic!("cannot put the policy: {e}"));
    }

    /// Removes a bucket with everything in it, as far as that goes.
    fn remove(&self, bucket: &str) {
        let sdk = self.client.sdk();
        let listed = self
            .client
            .call(sdk.list_object_versions().bucket(bucket).send());
        let Ok(listed) = listed else { return };
        let versions = listed.versions().iter().map(|v| (v.key(), v.version_id()));
        let markers = listed
            .delete_markers()
            .iter()
            .map(|v| (v.key(), v.version_id()));
        for (key, version) in versions.chain(markers) {
            let call = sdk
                .delete_object()
                .bucket(bucket)
                .set_key(key.map(str::to_owned));
            let call = call.set_version_id(version.map(str::to_owned));
            self.client.call(call.send()).ok();
        }
        self.client
            .call(sdk.delete_bucket().bucket(bucket).send())
            .ok();
    }
}
