//! What `write` and `init` say: each file, what somebody should look at, what only a person can give.

use rg_common::report::{Outcome, Page, Report, Tone};

use super::Written;

impl Written {
    fn lacks(&self) -> bool {
        self.missing.iter().any(|missing| missing.required)
    }
}

impl Report for Written {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        let verb = if self.dry_run { "would write" } else { "wrote" };
        for file in &self.files {
            if !file.changed {
                page.line(format!("unchanged    {}", file.path.display()));
                continue;
            }
            let mut parts = Vec::new();
            if !file.added.is_empty() {
                parts.push(format!("{} added", file.added.len()));
            }
            if !file.set.is_empty() {
                parts.push(format!("set: {}", file.set.join(", ")));
            }
            for (old, new) in &file.renamed {
                parts.push(format!("{old} is now {new}"));
            }
            let sign = page.tone(Tone::Good, "✓");
            let line = format!(
                "{sign} {verb}  {}  {}",
                file.path.display(),
                parts.join("; ")
            );
            page.line(line.trim_end());
        }
        for note in &self.notes {
            page.line(format!("{}  {note}", page.tone(Tone::Warn, "⚠")));
        }
        let config = self
            .files
            .iter()
            .find(|file| file.path.ends_with("rg.toml"));
        if let (true, Some(config)) = (self.first && !self.dry_run, config) {
            let path = config.path.display();
            page.line(format!("Next: rg-envgen --config {path} check"));
        }
        if self.missing.is_empty() {
            return;
        }
        page.line("");
        page.line("Only a person can give:");
        let rows: Vec<Vec<(Tone, String)>> = self
            .missing
            .iter()
            .map(|missing| {
                let need = if missing.required {
                    ""
                } else {
                    " (may be left out)"
                };
                vec![
                    (Tone::Plain, format!("  {}", missing.environment)),
                    (
                        if missing.required {
                            Tone::Bad
                        } else {
                            Tone::Plain
                        },
                        missing.name.clone(),
                    ),
                    (
                        Tone::Plain,
                        missing
                            .config
                            .clone()
                            .map_or("its env file".to_owned(), |key| format!("rg.toml: {key}")),
                    ),
                    (Tone::Plain, format!("{}{need}", missing.what)),
                ]
            })
            .collect();
        page.table(&["  ENVIRONMENT", "NAME", "GOES INTO", "WHAT"], &rows);
        if self.missing.iter().any(|missing| missing.config.is_none()) {
            page.line("For env files: rg-envgen write --set-from FILE (or - for standard input), lines [ENV.]NAME=VALUE.");
        }
    }

    fn outcome(&self) -> Outcome {
        if self.lacks() && !self.first {
            Outcome::BadNews
        } else {
            Outcome::Well
        }
    }
}
