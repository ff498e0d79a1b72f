//! Uploads in parts that are under way: their ids are known whatever happens, so that a run that
//! fails or is told to stop leaves none behind.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::create_multipart_upload::CreateMultipartUploadError;
use aws_sdk_s3::operation::create_multipart_upload::builders::CreateMultipartUploadFluentBuilder;
use rg_common::s3::{Kind, S3Error};

use super::trouble::{Stumble, cut};
use crate::target::Target;

/// How often it is looked whether the ids of new uploads have come.
const LOOK: Duration = Duration::from_millis(20);
/// Uploads that were begun and not completed.
#[derive(Default)]
pub struct Uploads {
    /// Key and id of each.
    open: Mutex<Vec<(String, String)>>,
    /// Those whose id is still to come.
    coming: AtomicUsize,
}

impl Uploads {
    /// Begins an upload in a task of its own, so that its id is known even when the run is told to
    /// stop before the answer has come.
    pub async fn begin(
        self: &Arc<Self>,
        key: &str,
        call: CreateMultipartUploadFluentBuilder,
    ) -> Result<Result<String, SdkError<CreateMultipartUploadError>>, Stumble> {
        let begun = Arc::clone(self);
        begun.coming.fetch_add(1, Ordering::SeqCst);
        let name = key.to_owned();
        let task = tokio::spawn(async move {
            let answer = call.send().await;
            let answer = answer.map(|upload| upload.upload_id.unwrap_or_default());
            if let (Ok(id), Ok(mut open)) = (&answer, begun.open.lock()) {
                open.push((name, id.clone()));
            }
            begun.coming.fetch_sub(1, Ordering::SeqCst);
            answer
        });
        task.await.map_err(cut)
    }

    /// It was completed or aborted.
    pub fn closed(&self, id: &str) {
        if let Ok(mut open) = self.open.lock() {
            open.retain(|(_, open)| open != id);
        }
    }

    /// Drops what was begun and will not be completed; returns how many could not be dropped.
    pub fn abandon(&self, to: &Target) -> usize {
        let client = &to.client;
        // Nobody waits any longer for the answer to a call that was under way, but its upload is.
        client.clean_up(async {
            while self.coming.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(LOOK).await;
            }
        });
        let open = self.open.lock();
        let open = open.map(|mut open| std::mem::take(&mut *open));
        let open = open.unwrap_or_default();
        let gone = open.iter().filter(|(key, id)| {
            let call = client.sdk().abort_multipart_upload();
            let call = call.bucket(&to.bucket).key(key).upload_id(id);
            match client.clean_up(call.send()) {
                Some(Ok(_)) => true,
                // It was completed in the last moment.
                Some(Err(error)) => S3Error::of(error).kind == Kind::NoObject,
                None => false,
            }
        });
        open.len() - gone.count()
    }
}
