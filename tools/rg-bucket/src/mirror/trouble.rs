//! Why an object was not copied, and whether another attempt may help.

use rg_common::s3::S3Error;

/// How servers say that they cannot hold a key.
const CANNOT_HOLD: [&str; 8] = [
    "XMinioInvalidObjectName",
    "XMinioInvalidResourceName",
    "XMinioObjectExistsAsDirectory",
    "InvalidObjectName",
    "InvalidArgument",
    "InvalidURI",
    "KeyTooLongError",
    "ExistingObjectIsDirectory",
];

/// Why an object was not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It was changed or deleted while it was copied.
    Changed,
    /// The target cannot hold such a key; in its words.
    CannotHold(String),
    /// The copy is not what was sent.
    Differs(String),
    /// Anything else, in words.
    Failed(String),
}

/// A trouble, and whether another attempt may help.
pub struct Stumble {
    /// The trouble.
    pub trouble: Trouble,
    /// Whether another attempt may help.
    pub is_passing: bool,
}

impl Trouble {
    /// Another attempt would end the same.
    pub fn finally(self) -> Stumble {
        Stumble {
            trouble: self,
            is_passing: false,
        }
    }
}

/// Whether nothing is wrong with an object but its name: the same call works for other keys. A
/// server that keeps objects as files cannot have `a` beside `a/b`, and fails.
pub fn is_about_the_name(status: Option<u16>, code: &str, said: &str) -> bool {
    matches!(status, Some(400 | 409)) && CANNOT_HOLD.contains(&code)
        || said.contains("is a directory")
        || said.contains("not a directory")
}

/// Why an object could not be read to its end.
pub enum Unread {
    /// The service refused.
    Refused(S3Error),
    /// The connection was cut.
    Cut(Stumble),
}

impl Unread {
    /// As a stumble; `refused` reads the service's refusal.
    pub fn of(self, refused: impl FnOnce(S3Error) -> Stumble) -> Stumble {
        match self {
            Unread::Refused(error) => refused(error),
            Unread::Cut(stumble) => stumble,
        }
    }
}

/// The connection that a body came through was cut: worth another attempt.
pub fn cut(error: impl std::fmt::Display) -> Stumble {
    Stumble {
        trouble: Trouble::Failed(format!("the connection was cut while it was read: {error}")),
        is_passing: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_refused_is_told_from_a_server_that_fails() {
        // As the gateway of JuiceFS, which is MinIO's front end, says it.
        let name = |status, code, said| is_about_the_name(Some(status), code, said);
        assert!(name(
            400,
            "XMinioInvalidResourceName",
            "Resource name contains bad components such as \"..\" or \".\""
        ));
        assert!(name(
            409,
            "XMinioObjectExistsAsDirectory",
            "Object name already exists as a directory"
        ));
        assert!(name(
            500,
            "InternalError",
            "We encountered an internal error, please try again.: cause(is a directory)"
        ));
        assert!(!name(
            500,
            "InternalError",
            "We encountered an internal error, please try again"
        ));
        assert!(!name(403, "AccessDenied", "Access Denied"));
        assert!(!name(400, "EntityTooLarge", ""));
    }
}
