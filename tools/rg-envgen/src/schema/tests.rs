use proptest::prelude::*;

use super::*;
use crate::profile;

const HEAD: &str = "profile = \"x\"\nhome = \"/srv\"\n[environments.staging]\n[environments.production]\nrotate_days = 90\n[[files]]\nname = \".env.{env}\"\nreaders = [\"app\", \"unit\"]\nmode = \"0640\"\n";

fn failure(rest: &str) -> String {
    let failure = Schema::parse(&format!("{HEAD}{rest}")).unwrap_err();
    format!("{failure:?}")
}

#[test]
fn what_is_not_understood_is_named_with_its_line_and_the_nearest_word() {
    assert_eq!(
        failure("[variables.A]\ntype = \"text\"\nformr = [\"B\"]\n"),
        "line 12: unknown key `formr`\nhint: did you mean `former`?"
    );
    assert_eq!(
        failure("[variables.A]\ntype = \"txt\"\n"),
        "line 10: A: unknown type `txt`\nhint: did you mean `text`?"
    );
    assert_eq!(
        failure(
            "[variables.A]\ntype = \"text\"\nderive = \"x${PORTT}\"\n[variables.PORT]\ntype = \"text\"\n"
        ),
        "line 10: A refers to `PORTT`, which is not there\nhint: did you mean `PORT`?"
    );
    assert_eq!(
        failure("[variables.A]\ntype = \"text\"\ndefault = { prod = \"x\" }\n"),
        "line 10: A: no environment `prod` in the schema\nhint: there are: staging, production"
    );
}

#[test]
fn a_weak_secret_cannot_be_asked_for() {
    let said = failure("[variables.A]\ntype = \"secret\"\ngenerate = \"hex:8\"\n");
    assert!(
        said.starts_with("line 10: A: `hex:8` makes 64 bits, fewer than 128"),
        "{said}"
    );
    let said = failure("[variables.A]\ntype = \"secret\"\ngenerate = \"uuid\"\n");
    assert!(said.contains("makes 122 bits"), "{said}");
    let said = failure("[variables.A]\ntype = \"secret\"\nbits = 256\ngenerate = \"hex:16\"\n");
    assert!(said.contains("fewer than 256"), "{said}");
}

#[test]
fn a_circle_and_a_name_given_twice_are_refused() {
    let two = "[variables.A]\ntype = \"text\"\nderive = \"${B}\"\n[variables.B]\ntype = \"text\"\nderive = \"${A}\"\n";
    assert_eq!(failure(two), "line 10: A is made of itself");
    let two = "[variables.A]\ntype = \"text\"\nname = \"X_{ENV}\"\n[variables.B]\ntype = \"text\"\nformer = [\"X_STAGING\"]\n";
    assert_eq!(failure(two), "line 13: `X_STAGING` is a name of A and of B");
    let two = "[variables.A]\ntype = \"secret\"\ngenerate = \"hex:16\"\ndefault = \"x\"\n";
    assert!(failure(two).contains("has more than one source"));
}

#[test]
fn a_schema_is_read_with_its_order_lines_and_names() {
    let schema = Schema::parse(&format!(
        "{HEAD}[variables.Z]\ntype = \"secret\"\nname = \"{{ENV}}_Z\"\ngenerate = \"hex:32\"\n[variables.A]\ntype = \"port\"\ndefault = {{ staging = 1, production = 2 }}\nrequired = [\"production\"]\n"
    ))
    .unwrap();
    let names: Vec<_> = schema
        .variables
        .iter()
        .map(|v| (v.name_in("staging"), v.line))
        .collect();
    assert_eq!(names, [("STAGING_Z".to_owned(), 10), ("A".to_owned(), 14)]);
    assert!(schema.variables[1].required.has("production"));
    assert!(!schema.variables[1].required.has("staging"));
    assert_eq!(schema.files[0].name_in("staging"), ".env.staging");
    assert_eq!(schema.environments[1].rotate_days, Some(90));
    assert_eq!(schema.meant("STAGING_Z", "staging").unwrap().id, "Z");
}

proptest! {
    #[test]
    fn a_schema_with_anything_cut_out_or_put_in_is_refused_or_read(
        from in 0usize..12_000, length in 0usize..200, strange in "[\\PC\n\"\\[\\]{}$=]{0,12}"
    ) {
        let text = profile::RGRID.schema;
        let at = |index: usize| {
            let mut index = index.min(text.len());
            while !text.is_char_boundary(index) {
                index -= 1;
            }
            index
        };
        let changed = format!("{}{strange}{}", &text[..at(from)], &text[at(from + length)..]);
        if let Ok(schema) = Schema::parse(&changed) {
            for variable in &schema.variables {
                for environment in &schema.environments {
                    prop_assert!(!variable.name_in(&environment.name).is_empty());
                }
            }
        }
    }
}
