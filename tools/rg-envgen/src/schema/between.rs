//! What holds between variables: references lead somewhere and not back, names are given once.

use std::collections::BTreeMap;

use rg_common::config::nearest;
use rg_common::{Failure, Result};

use super::{Schema, Source, Variable};

/// Every reference leads to a variable, and none back to where it began.
pub(super) fn references(schema: &Schema) -> Result<()> {
    let of = |variable: &Variable| -> Vec<String> {
        let texts = match &variable.source {
            Source::Fixed(value) | Source::Default(value) => value.texts(),
            Source::Derived(text) => vec![text],
            Source::Url(parts) => parts.texts(),
            Source::Twin(other) => return vec![other.clone()],
            Source::Generated(_) | Source::Person(_) | Source::Absent => Vec::new(),
        };
        let all = texts.iter().flat_map(|text| text.references());
        all.map(str::to_owned).collect()
    };
    for variable in &schema.variables {
        let at = |what: String| Failure::new(format!("line {}: {what}", variable.line));
        for id in of(variable) {
            if schema.variable(&id).is_none() {
                let failure = at(format!(
                    "{} refers to `{id}`, which is not there",
                    variable.id
                ));
                let others = schema.variables.iter().filter(|v| v.id != variable.id);
                let known = others.map(|v| v.id.as_str());
                return Err(match nearest(&id, known) {
                    Some(near) => failure.hint(format!("did you mean `{near}`?")),
                    None => failure,
                });
            }
        }
        if let Source::Twin(other) = &variable.source {
            let twin = schema.variable(other).map(|twin| &twin.source);
            if !matches!(twin, Some(Source::Url(_) | Source::Person(_))) {
                return Err(at(format!(
                    "{} is the twin of {other}, which is no address with `parts` or `ask`",
                    variable.id
                )));
            }
        }
        // Depth first from here; whoever comes back to the start is in a circle.
        let mut open = of(variable);
        let mut seen = Vec::new();
        while let Some(id) = open.pop() {
            if id == variable.id {
                return Err(at(format!("{} is made of itself", variable.id)));
            }
            if let Some(next) = schema.variable(&id).filter(|_| !seen.contains(&id)) {
                open.extend(of(next));
                seen.push(id);
            }
        }
    }
    Ok(())
}

/// No two variables have the same name in a file, now or formerly.
pub(super) fn names(schema: &Schema) -> Result<()> {
    for environment in &schema.environments {
        let mut known: BTreeMap<String, &Variable> = BTreeMap::new();
        for variable in &schema.variables {
            let former = variable.former_in(&environment.name);
            for name in former.chain([variable.name_in(&environment.name)]) {
                if let Some(other) = known.insert(name.clone(), variable) {
                    return Err(Failure::new(format!(
                        "line {}: `{name}` is a name of {} and of {}",
                        variable.line, other.id, variable.id
                    )));
                }
            }
        }
    }
    Ok(())
}
