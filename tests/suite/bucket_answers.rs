//! Servers that answer wrongly: a list that does not go on, a list that repeats itself, a bucket
//! that is somebody else's.

use rg_tests::{HttpSink, Sandbox, sandbox};

const DENIED: &str = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>";

fn place(sink: &HttpSink) -> Sandbox {
    let place = sandbox!();
    place.write("env", "KEY=AK\nSECRET=hunter2hunter2\n");
    let bucket = |name: &str| {
        format!(
            "[environments.production.buckets.{name}]\nendpoint = \"{}\"\nname = \"{name}\"\naccess_key = \"$KEY\"\nsecret_key = \"$SECRET\"\naccess = \"private\"\n",
            sink.url("").trim_end_matches('/')
        )
    };
    place.config(&format!(
        "[stores.local]\nurl = \"file://{{root}}/store\"\n[environments.production]\nenv_file = \"{{root}}/env\"\n{}{}",
        bucket("first"),
        bucket("second")
    ));
    place
}

fn list(keys: &[&str], rest: &str) -> String {
    let keys: String = keys
        .iter()
        .map(|key| format!("<Contents><Key>{key}</Key><Size>1</Size><ETag>\"e\"</ETag></Contents>"))
        .collect();
    format!("<?xml version=\"1.0\"?><ListBucketResult>{keys}{rest}</ListBucketResult>")
}

#[test]
fn a_list_that_does_not_go_on_is_an_error_and_not_a_shorter_list() {
    let sink = HttpSink::start();
    sink.answer(
        "/first/",
        200,
        &list(&["a"], "<IsTruncated>true</IsTruncated>"),
    );
    sink.answer(
        "/first",
        200,
        &list(&["a"], "<IsTruncated>true</IsTruncated>"),
    );
    let place = place(&sink);
    for args in [
        &["list", "production/buckets/first"][..],
        &[
            "mirror",
            "production/buckets/first",
            "production/buckets/second",
        ],
    ] {
        let output = place.run("rg-bucket", args.iter().copied()).fails(2);
        assert!(
            output
                .err()
                .contains("cannot list the bucket `first`: an answer of ")
                && output.err().contains(
                    "cannot be believed: the list breaks off: more is promised, but not where"
                ),
            "{output:?}"
        );
        assert_eq!(output.out(), "");
    }
}

#[test]
fn a_list_that_repeats_itself_mirrors_and_deletes_nothing() {
    let sink = HttpSink::start();
    for path in ["/first", "/first/"] {
        sink.answer(path, 200, &list(&["a", "b", "a"], ""));
    }
    for path in ["/second", "/second/"] {
        sink.answer(path, 200, &list(&["c"], ""));
    }
    let place = place(&sink);
    let output = place
        .run(
            "rg-bucket",
            [
                "mirror",
                "production/buckets/first",
                "production/buckets/second",
                "--delete",
                "--max-delete",
                "100%",
                "--yes",
            ],
        )
        .fails(2);
    assert!(
        output
            .err()
            .contains("the list of the source names a twice"),
        "{output:?}"
    );
    assert!(
        sink.requests()
            .iter()
            .all(|request| request.method == "GET")
    );
}

#[test]
fn a_bucket_that_is_somebody_elses_is_neither_ours_nor_missing() {
    let sink = HttpSink::start();
    sink.answer("*", 403, DENIED);
    let place = place(&sink);
    for args in [
        &["plan", "production/buckets/first"][..],
        &["apply", "--yes", "production/buckets/first"],
    ] {
        let output = place.run("rg-bucket", args.iter().copied()).fails(2);
        assert!(
            output.out().contains("?  the bucket `first` is there, but the key may not look into it: it belongs to somebody else, or the key lacks the right"),
            "{output:?}"
        );
        assert!(!output.out().contains("hunter2") && !output.err().contains("hunter2"));
    }
    // It was looked at, and nothing else was tried.
    assert!(
        sink.requests()
            .iter()
            .all(|request| request.method == "HEAD" || request.method == "GET")
    );
}
