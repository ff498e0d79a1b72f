use super::*;

fn failure(text: &str) -> (String, String) {
    let failure = DatabaseUrl::parse(text).unwrap_err();
    (failure.to_string(), failure.hints().join(" | "))
}

fn shown(text: &str) -> String {
    DatabaseUrl::parse(text).unwrap().to_string()
}

#[test]
fn the_password_is_never_shown() {
    for text in [
        "postgresql+asyncpg://app:s3cret@db:5432/app",
        "postgresql://app@db/app?password=s3cret",
        "postgres://app:s3cr%65t@db/app",
    ] {
        let url = DatabaseUrl::parse(text).unwrap();
        assert_eq!(url.to_string(), "postgresql://app:***@db:5432/app");
        assert_eq!(format!("{url:?}"), "postgresql://app:***@db:5432/app");
        assert_eq!(url.password.unwrap().reveal(), "s3cret");
    }
    for text in [
        "postgresql://app:s3c/ret@db/app",
        "postgresql://app:s3c#ret@db/app",
        "postgresql://app:s3c?ret@db/app",
        "postgresql://app:s3cret%@db/app",
        "postgresql://app:s3c ret@db/app",
        "app:s3cret@db/app",
        "postgresql://app:s3cret@db:x/app",
        "postgresql://app:s3cret@db/app?nonsense=s3cret",
        "postgresql://app:s3cret@[::1/app",
        "postgresql://app:s3cret@/app",
        "postgresql://app:s3cret@db/",
    ] {
        let failure = DatabaseUrl::parse(text).unwrap_err();
        let all = format!("{failure:?}");
        assert!(!all.contains("s3c"), "{text}: {all}");
    }
}

#[test]
fn drivers_sockets_and_ipv6_are_understood() {
    for (text, expected) in [
        ("postgres://u@h/d", "postgresql://u@h:5432/d"),
        (
            "postgresql+psycopg2://u:p@h:6/d",
            "postgresql://u:***@h:6/d",
        ),
        ("postgresql://u@[::1]:7/d", "postgresql://u@[::1]:7/d"),
        (
            "postgresql://u@[fe80::1]/d",
            "postgresql://u@[fe80::1]:5432/d",
        ),
        (
            "postgresql://u@/d?host=/run/postgresql",
            "postgresql://u@/d?host=/run/postgresql",
        ),
        (
            "postgresql://u@%2Frun%2Fpg:6543/d",
            "postgresql://u@/d?host=/run/pg&port=6543",
        ),
        (
            "postgresql://a%40b:p%3A@h/d%20e",
            "postgresql://a@b:***@h:5432/d e",
        ),
        ("postgresql://u:p@ss@h/d", "postgresql://u:***@h:5432/d"),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
    let url = DatabaseUrl::parse("postgresql://u:p@h/d").unwrap();
    assert_eq!(
        url.with_database("other").to_string(),
        "postgresql://u:***@h:5432/other"
    );
}

#[test]
fn tls_has_libpqs_and_asyncpgs_words() {
    let tls = |query: &str| {
        let url = DatabaseUrl::parse(&format!("postgresql://u@h/d?{query}")).unwrap();
        (url.tls, url.root_certificates)
    };
    assert_eq!(tls(""), (TlsMode::Prefer, None));
    assert_eq!(tls("sslmode=disable").0, TlsMode::Disable);
    assert_eq!(tls("sslmode=allow").0, TlsMode::Allow);
    assert_eq!(tls("ssl=require").0, TlsMode::Require);
    assert_eq!(tls("ssl=true").0, TlsMode::Require);
    assert_eq!(tls("sslmode=verify-ca").0, TlsMode::VerifyCa);
    assert_eq!(
        tls("sslmode=verify-full&sslrootcert=/etc/rds.pem"),
        (TlsMode::VerifyFull, Some("/etc/rds.pem".into()))
    );
    assert_eq!(tls("sslrootcert=system"), (TlsMode::VerifyFull, None));
}

#[test]
fn an_orms_options_are_left_out_with_a_note() {
    let url = DatabaseUrl::parse(
        "postgresql://u@h/d?schema=public&pgbouncer=true&connect_timeout=3&application_name=x",
    )
    .unwrap();
    assert_eq!(
        url.notes,
        [
            "`schema` is an option of Prisma; left out",
            "`pgbouncer` is an option of Prisma; left out"
        ]
    );
    assert_eq!(url.connect_timeout, Duration::from_secs(3));
    let longest = DatabaseUrl::parse("postgresql://u@h/d?connect_timeout=0").unwrap();
    assert_eq!(longest.connect_timeout, MAX_CONNECT_TIMEOUT);
}

#[test]
fn what_is_wrong_with_a_url_is_said() {
    for (text, what, hint) in [
        ("", "the database URL is empty", SHAPE),
        (
            "host=db user=app",
            "the database URL has a blank at position 8",
            "a blank in a password is written %20",
        ),
        (
            "postgresql://u@h/d ",
            "the database URL has a blank at position 19",
            "a blank in a password is written %20",
        ),
        (
            "mysql://u@h/d",
            "the database URL begins with `mysql://`, which is not PostgreSQL",
            SHAPE,
        ),
        (
            "postgresql://u@h/d?sslmod=require",
            "the database URL has an unknown option `sslmod`",
            "is `sslmode` meant?",
        ),
        (
            "postgresql://u@h/d?sslmode=yes",
            "the database URL's option `sslmode` is `yes`, which is no TLS mode",
            "one of disable, allow, prefer, require, verify-ca, verify-full",
        ),
        ("postgresql://h/d", "the database URL names no user", SHAPE),
        (
            "postgresql://u@h",
            "the database URL names no database",
            SHAPE,
        ),
        (
            "postgresql://u@h:70000/d",
            "the database URL's port is no number from 1 to 65535",
            "a `:` or `@` in the password is written %3A or %40",
        ),
        (
            "postgresql://u@h1,h2/d",
            "the database URL names several hosts",
            "name the one to back up: the primary, or one replica",
        ),
        (
            "postgresql://u:a%zz@h/d",
            "the database URL's password has a `%` that is not followed by two hexadecimal digits",
            "a `%` itself is written %25",
        ),
        (
            "postgresql://u@h/d?sslcert=/x",
            "the database URL's option `sslcert` is not supported",
            "use a URL with host, user and password for backups",
        ),
    ] {
        assert_eq!(failure(text), (what.to_owned(), hint.to_owned()), "{text}");
    }
}
