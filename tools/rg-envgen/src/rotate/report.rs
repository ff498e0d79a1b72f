//! What `rotate` prints.

use std::path::PathBuf;

use rg_common::report::{Outcome, Page, Report, Tone};
use serde::Serialize;

/// What a rotation did, or would do.
#[derive(Debug, Default, Serialize)]
pub(super) struct Rotated {
    pub(super) environment: String,
    /// The variables, by the schema's ids.
    pub(super) names: Vec<String>,
    pub(super) files: Vec<PathBuf>,
    pub(super) roles: Vec<String>,
    /// The buckets whose access key it is.
    pub(super) buckets: Vec<String>,
    /// Containers that are made anew.
    pub(super) containers: Vec<String>,
    pub(super) units: Vec<String>,
    /// What the new values do to those who are logged in.
    pub(super) effects: Vec<String>,
    /// What was found of an earlier run and how it ended.
    pub(super) earlier: Option<String>,
    pub(super) dry_run: bool,
}

impl Rotated {
    /// What is asked before the first change.
    pub(super) fn question(&self) -> String {
        let mut text = format!(
            "Give {} of {} new values",
            self.names.join(", "),
            self.environment
        );
        if !self.roles.is_empty() {
            text.push_str(&format!(
                ", set the password of the role {}",
                self.roles.join(", ")
            ));
        }
        if !self.buckets.is_empty() {
            text.push_str(&format!(
                ", replace the access key of the bucket {}",
                self.buckets.join(", ")
            ));
        }
        if !self.containers.is_empty() {
            text.push_str(&format!(", make {} anew", self.containers.join(", ")));
        }
        if !self.units.is_empty() {
            text.push_str(&format!(", restart {}", self.units.join(", ")));
        }
        for effect in &self.effects {
            text.push_str(&format!(" ({effect})"));
        }
        text.push('?');
        text
    }
}

impl Report for Rotated {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        if let Some(said) = &self.earlier {
            page.line(format!("{}  {said}", page.tone(Tone::Warn, "⚠")));
        }
        if self.names.is_empty() {
            return;
        }
        let verb = if self.dry_run {
            "would rotate"
        } else {
            "rotated"
        };
        let sign = page.tone(Tone::Good, "✓");
        page.line(format!(
            "{sign} {verb} {} of {}",
            self.names.join(", "),
            self.environment
        ));
        for role in &self.roles {
            page.line(format!(
                "  role {role}: new password, proven by a new login"
            ));
        }
        for bucket in &self.buckets {
            page.line(format!(
                "  bucket {bucket}: new access key, proven by a new login"
            ));
        }
        for container in &self.containers {
            page.line(format!("  made anew {container}"));
        }
        for file in &self.files {
            page.line(format!("  {}", file.display()));
        }
        for unit in &self.units {
            page.line(format!("  restarted {unit}"));
        }
        for effect in &self.effects {
            page.line(format!("{}  {effect}", page.tone(Tone::Warn, "⚠")));
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome::Well
    }
}
