//! The proof: what somebody without a key meets, against what is declared.
//!
//! A policy that reads well can be overruled by an older grant, by a server's own switch or by a
//! proxy. So the bucket is asked the way a stranger would: read an object, list the keys, write.
//! The write carries a digest that does not fit its body: a server that would take it refuses the
//! digest (`BadDigest`) and keeps nothing; one that does not refuses the stranger first.

use crate::found::{Exposure, Seen};
use crate::plan::Plan;
use crate::wanted::Access;

/// Adds to a plan what is not as declared, and what could not be told.
pub fn judge(plan: &mut Plan, access: Option<Access>, exposure: &Exposure) {
    let read = access == Some(Access::PublicRead);
    let undeclared = match access {
        Some(_) => "",
        None => {
            "; rg.toml does not declare its access: say access = \"private\" or \"public-read\""
        }
    };
    for (what, seen, allowed) in [
        ("read an object", exposure.get, read),
        ("list the keys", exposure.list, false),
        ("write an object", exposure.put, false),
    ] {
        match (seen, allowed) {
            (Seen::Open(_), true) | (Seen::Refused(_), false) | (Seen::NotAsked, _) => {}
            (Seen::Open(status), false) => {
                let how = if status < 300 {
                    format!("HTTP {status} without a key")
                } else {
                    format!("HTTP {status}: not the stranger was refused, only the digest")
                };
                plan.findings
                    .push(format!("anybody can {what} ({how}){undeclared}"));
            }
            (Seen::Refused(status), true) => {
                plan.findings.push(format!(
                    "nobody can {what} without a key (HTTP {status}), and access is public-read"
                ));
            }
            (Seen::Unclear(0), _) => {
                plan.unknown.push(format!(
                    "whether anybody can {what}: no answer to a request without a key"
                ));
            }
            (Seen::Unclear(status), _) => {
                plan.unknown.push(format!(
                    "whether anybody can {what}: HTTP {status} to a request without a key"
                ));
            }
        }
    }
}

/// Reads the answer to a stranger's request.
pub fn seen(status: u16) -> Seen {
    match status {
        200..300 => Seen::Open(status),
        400..500 if status != 408 && status != 429 => Seen::Refused(status),
        _ => Seen::Unclear(status),
    }
}

/// Reads the answer to a stranger's write with a digest that does not fit: a complaint about the
/// digest means that the write itself was allowed.
pub fn seen_write(status: u16, body: &str) -> Seen {
    let digest = ["BadDigest", "InvalidDigest", "ContentMD5Mismatch"];
    if status == 400 && digest.iter().any(|code| body.contains(code)) {
        return Seen::Open(status);
    }
    seen(status)
}

/// How it is said: `GET 200, LIST 403, PUT 403`.
pub fn said(exposure: &Exposure) -> String {
    let one = |name: &str, seen: Seen| match seen {
        Seen::Open(status) | Seen::Refused(status) => Some(format!("{name} {status}")),
        Seen::Unclear(0) => Some(format!("{name} no answer")),
        Seen::Unclear(status) => Some(format!("{name} {status}")),
        Seen::NotAsked => None,
    };
    let all = [
        one("GET", exposure.get),
        one("LIST", exposure.list),
        one("PUT", exposure.put),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(access: Access, get: u16, list: u16, put: (u16, &str)) -> (Vec<String>, Vec<String>) {
        let mut plan = Plan::default();
        let exposure = Exposure {
            get: seen(get),
            list: seen(list),
            put: seen_write(put.0, put.1),
        };
        judge(&mut plan, Some(access), &exposure);
        (plan.findings, plan.unknown)
    }

    #[test]
    fn a_bucket_that_is_open_to_anybody_is_found_whatever_its_policy_says() {
        let (bad, _) = judged(Access::Private, 200, 200, (400, "<Code>BadDigest</Code>"));
        assert_eq!(
            bad,
            [
                "anybody can read an object (HTTP 200 without a key)",
                "anybody can list the keys (HTTP 200 without a key)",
                "anybody can write an object (HTTP 400: not the stranger was refused, only the digest)",
            ]
        );
        let (bad, _) = judged(Access::PublicRead, 403, 403, (403, ""));
        assert_eq!(
            bad,
            ["nobody can read an object without a key (HTTP 403), and access is public-read"]
        );
    }

    #[test]
    fn as_declared_is_no_finding() {
        assert_eq!(
            judged(Access::Private, 403, 403, (403, "")),
            (vec![], vec![])
        );
        assert_eq!(
            judged(Access::PublicRead, 200, 403, (403, "")),
            (vec![], vec![])
        );
        // Some servers know no requests without a signature at all.
        assert_eq!(
            judged(Access::Private, 400, 400, (400, "UnsupportedAlgorithm")),
            (vec![], vec![])
        );
    }

    #[test]
    fn a_public_bucket_that_nobody_declared_is_pointed_out() {
        let mut plan = Plan::default();
        let exposure = Exposure {
            get: seen(200),
            list: seen(403),
            put: seen(403),
        };
        judge(&mut plan, None, &exposure);
        assert_eq!(
            plan.findings,
            [
                "anybody can read an object (HTTP 200 without a key); rg.toml does not declare its access: say access = \"private\" or \"public-read\""
            ]
        );
    }

    #[test]
    fn a_server_that_fails_is_neither_open_nor_closed() {
        let (bad, unknown) = judged(Access::Private, 503, 403, (301, ""));
        assert_eq!(bad, [""; 0]);
        assert_eq!(
            unknown,
            [
                "whether anybody can read an object: HTTP 503 to a request without a key",
                "whether anybody can write an object: HTTP 301 to a request without a key",
            ]
        );
    }
}
