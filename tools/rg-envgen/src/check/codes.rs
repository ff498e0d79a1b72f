//! Every finding that `check` can make. `check --list-codes` prints this table.

use serde::Serialize;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The deployment fails, or a secret is none: exit code 1.
    Error,
    /// Look at it; exit code 1 with `--strict`.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// One kind of finding.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Code {
    /// `E101`: what a script or a suppression names. Never given to another finding.
    pub id: &'static str,
    /// How much it weighs.
    pub severity: Severity,
    /// What is wrong.
    pub about: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// Whether `--fix` mends it, where nothing is lost.
    pub mends: bool,
}

macro_rules! codes {
    ($($name:ident $id:literal $severity:ident $about:literal, $fix:literal $($mends:ident)?;)*) => {
        $(
            #[doc = $about]
            pub const $name: &Code = &Code {
                id: $id,
                severity: Severity::$severity,
                about: $about,
                fix: $fix,
                mends: codes!(@ $($mends)?),
            };
        )*
        /// All of them, in order.
        pub const ALL: &[&Code] = &[$($name),*];
    };
    (@) => { false };
    (@ mends) => { true };
}

codes! {
    NOT_TEXT "E001" Error "the file is not text: NUL bytes, or not UTF-8", "write it anew as UTF-8";
    NOT_UNDERSTOOD "E002" Error "a line is neither an assignment nor a comment", "write NAME=value, or put # before it";
    MISSING "E101" Error "a required variable is missing or empty", "rg-envgen write adds what can be generated; set the rest";
    UNKNOWN "E102" Warning "the schema does not know the variable", "correct the name, add it to the schema, or delete the line";
    RENAMED "E103" Error "the variable has another name now", "rename it" mends;
    DUPLICATE "E104" Error "a variable is set twice, to different values", "delete the wrong line; every reader takes the last one";
    REPEATED "E105" Warning "a variable is set twice, to the same value", "delete one of the lines" mends;
    FORBIDDEN "E106" Error "a variable is set that must not be set here", "delete the line";
    WRONG_KIND "E107" Error "the value is not what the schema asks for", "correct the value";
    NO_FILE "E108" Error "an env file of the schema is not there", "rg-envgen write makes it";
    WRONG_ENVIRONMENT "E109" Error "the file says that it is for another environment", "correct the value, or use the other environment's file";
    PLACEHOLDER "E201" Error "a placeholder was left in", "put the real value there; rg-envgen write generates secrets";
    VENDOR_DEFAULT "E202" Error "a password that everybody knows from the vendor's documents", "rg-envgen rotate NAME";
    WEAK "E203" Error "a secret is too easy to guess", "rg-envgen rotate NAME, or openssl rand -hex 32";
    SHARED "E204" Error "two environments have the same secret", "rg-envgen rotate NAME --env one of them";
    REUSED "E205" Warning "one secret under two names", "rotate one of them";
    OVERDUE "E206" Warning "a secret is older than the schema allows", "rg-envgen rotate NAME";
    WRONG_DRIVER "E301" Error "the address has another driver than the schema asks for", "change what stands before ://" mends;
    NO_DRIVER "E302" Warning "the address names no driver", "an async SQLAlchemy app needs postgresql+asyncpg://; Alembic, psql and libpq need it plain";
    SSLMODE "E303" Error "asyncpg does not know sslmode", "write ssl= instead of sslmode=" mends;
    PARTS_DISAGREE "E304" Error "the address and the variables that it is made of disagree", "make them equal; which one is right, a login tells";
    TWIN_DISAGREES "E305" Error "two addresses of one database disagree", "make them equal but for the driver";
    NO_ADDRESS "E306" Error "the address cannot be read", "percent-encode what is special in user and password";
    PORT_TWICE "E401" Error "two variables have the same port", "give one of them another port";
    PORT_TAKEN "E402" Error "something else listens on the port", "stop it, or choose another port";
    PORT_HELD "E403" Warning "a process listens on the port that may not be the one that is meant", "look who it is; choose another port if it is not yours";
    PORT_POPULAR "E404" Note "other software likes to take this port", "choose another one before that software is installed";
    READ_DIFFERENTLY "E501" Error "the programs of a deployment read different values", "quote the value; rg-envgen check --explain NAME shows what each one reads" mends;
    READ_OTHERWISE "E502" Note "docker run, export $(… | xargs) or node read another value than the rest", "letters, digits and _-.,:/@%+=^{} are the same for all; take care that those do not read this file" mends;
    RUNS "E503" Error "a shell that sources the file would run a part of it", "quote the value" mends;
    BYTE_ORDER_MARK "E504" Error "the file begins with a byte order mark: systemd and shells lose the first variable", "save it as UTF-8 without BOM" mends;
    CRLF "E505" Error "lines end in CR LF: a shell takes the CR as part of each value", "sed -i 's/\\r$//' FILE" mends;
    EXPORT "E506" Warning "systemd drops a line with `export`, docker run refuses the file", "delete the word export" mends;
    COMMENT_CONTINUES "E507" Error "a comment ends in a backslash: systemd before v254 swallows the next line", "delete the backslash" mends;
    ODD_NAME "E508" Warning "not every reader takes this name", "a letter or _, then letters, digits and _";
    NO_NEWLINE "E509" Note "the last line has no line end: what is appended to the file joins it", "add one" mends;
    MODE "E601" Error "others than the owner and a reading group can read or change the file", "chmod 0600 FILE; what others could read is to be rotated" mends;
    OWNER "E602" Warning "the file belongs to neither root, nor us, nor its directory's owner", "chown it to who runs the app, or to root";
    SYMLINK "E603" Warning "the file is a symbolic link: it can be pointed elsewhere", "put the file itself there";
    TRACKED "E604" Error "git tracks the file", "git rm --cached FILE, add it to .gitignore, rotate what is in it";
    IN_HISTORY "E605" Error "git's history has the file", "rotate what was in it: whoever has a clone has it";
    NOT_IGNORED "E606" Warning "git does not ignore the file", "add it to .gitignore";
    IN_BUILD_CONTEXT "E607" Error "docker build sends the file into the image's build", "add it to .dockerignore";
    OPEN_DIRECTORY "E608" Error "everybody can replace files in the directory", "chmod o-w DIRECTORY";
    PLAIN_LIST "E609" Error "a plain list of passwords lies beside the env file", "rg-envgen export -o kit.age makes an encrypted one; then delete it";
    ALL_INTERFACES "E701" Error "the service listens on all interfaces; docker bypasses ufw", "127.0.0.1, and a proxy before it";
    DEBUG "E702" Error "debugging is on in production", "set it to false";
    CANNOT_TELL "E900" Warning "a look at the machine was not possible, so nothing is said about it", "see the reason";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_in_order() {
        let ids: Vec<_> = ALL.iter().map(|code| code.id).collect();
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(ids, sorted);
    }
}
