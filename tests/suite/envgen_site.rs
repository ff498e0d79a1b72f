//! The rendered nginx sites at work: a real nginx with a certificate of our own before a small app,
//! asked by curl and openssl. What the sites promise is seen from outside.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rg_tests::{Output, Running, Sandbox, eventually, sandbox};

const NAME: &str = "app.acme.org";
const LIMIT: Duration = Duration::from_secs(20);
/// What goes through a websocket there and back.
const WORD: &str = "there and back";
/// 50 MiB, the largest body that passes.
const BODY_MAX: usize = 50 << 20;

/// What stands behind nginx: it notes the head of each request and answers with long JSON, with
/// headers of its own that the site's must replace; an upgrade it answers, then it echoes.
struct App {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl App {
    fn start() -> App {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&heads);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let noted = Arc::clone(&noted);
                // A client that goes away in the middle is nginx's to tell.
                thread::spawn(move || converse(stream, &noted).ok());
            }
        });
        App { port, heads }
    }

    fn heads(&self) -> Vec<String> {
        let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        heads.clone()
    }
}

fn converse(stream: TcpStream, noted: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let low = head.to_ascii_lowercase();
        let heads = noted.lock();
        heads
            .unwrap_or_else(PoisonError::into_inner)
            .push(low.clone());
        if low.contains("\r\nupgrade: websocket\r\n") {
            let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
            writer.write_all(answer.as_bytes())?;
            let mut word = [0; WORD.len()];
            reader.read_exact(&mut word)?;
            return writer.write_all(&word);
        }
        let length = low
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: u64 = length.map_or(0, |text| text.parse().unwrap_or(0));
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        let body = format!("{{\"filler\": \"{}\"}}", "a".repeat(4000));
        write!(
            writer,
            "HTTP/1.1 200 OK\r\nServer: uvicorn\r\nX-Frame-Options: SAMEORIGIN\r\nStrict-Transport-Security: max-age=1\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
    }
}

/// A site with its nginx and its app.
struct Served {
    place: Sandbox,
    app: App,
    http: u16,
    https: u16,
    // Before the sandbox goes.
    _nginx: Running,
}

/// Ports that nobody holds; all at once, so that they differ.
fn free<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    held.map(|one| one.local_addr().expect("an address").port())
}

/// A certificate authority and a certificate of its making, which names an OCSP responder.
fn certificates(place: &Sandbox, responder: u16) {
    let extensions = format!(
        "[leaf]\nsubjectAltName=DNS:{NAME}\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1:{responder}\n\
         [ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign,digitalSignature\n"
    );
    place.write("tls/ext", extensions);
    let openssl = |line: &str| place.program("openssl", line.split(' ')).run().ok();
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -subj /CN=Test-CA -keyout tls/ca.key -out tls/chain.pem -days 2 -extensions ca -config tls/req",
    );
    openssl(
        "req -new -newkey rsa:2048 -nodes -subj /CN=leaf -keyout tls/privkey.pem -out tls/leaf.csr -config tls/req",
    );
    openssl(
        "x509 -req -in tls/leaf.csr -CA tls/chain.pem -CAkey tls/ca.key -set_serial 4097 -days 2 -extfile tls/ext -extensions leaf -out tls/leaf.pem",
    );
    let full = place.read("tls/leaf.pem") + &place.read("tls/chain.pem");
    place.write("tls/fullchain.pem", full);
    // What the responder knows: one certificate, which is valid.
    place.write("tls/index", "V\t361231235959Z\t\t1001\tunknown\t/CN=leaf\n");
}

/// Renders the profile's sites and starts nginx with all of them.
fn served(profile: &str, responder: u16) -> Served {
    let place = sandbox!();
    place.write(
        "tls/req",
        "[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign,digitalSignature\n",
    );
    let app = App::start();
    let domain = match profile {
        "rgrid" => format!("production.DOMAIN={NAME}"),
        _ => format!("DOMAIN={NAME}"),
    };
    let args = ["init", "--profile", profile, "--dir", "d", "--set", &domain];
    place.run("rg-envgen", args).ok();
    let args = ["--config", "d/rg.toml", "render", "nginx", "-o", "sites"];
    place.run("rg-envgen", args).ok();
    certificates(&place, responder);
    let root = place.root().display().to_string();
    let [http, https] = free();
    let mut sites = String::new();
    for site in place.files("sites") {
        for line in place.read(format!("sites/{site}")).lines() {
            let word = line.trim();
            // Loopback instead of the world, and our certificate; all else is as rendered.
            let here = match word.split_once(' ') {
                Some(("listen", rest)) if rest.starts_with('[') => continue,
                Some(("listen", rest)) if rest.starts_with("80") => {
                    format!("listen 127.0.0.1:{http};")
                }
                Some(("listen", _)) => format!("listen 127.0.0.1:{https} ssl http2;"),
                Some(("server", rest)) if rest.starts_with("127.0.0.1:") => {
                    format!("server 127.0.0.1:{};", app.port)
                }
                Some((ssl, path)) if path.contains("/etc/letsencrypt/live/") => {
                    let file = path.rsplit('/').next().expect("a name");
                    format!("{ssl} {root}/tls/{file}")
                }
                _ => line.to_owned(),
            };
            sites.push_str(&here);
            sites.push('\n');
        }
    }
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|one| format!("{one}_temp_path {root}/tmp-{one};\n"))
        .concat();
    let main = format!(
        "daemon off;\npid {root}/pid;\nerror_log {root}/error.log info;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{sites}}}\n"
    );
    place.write("nginx.conf", main);
    let args = ["-p", root.as_str(), "-c", "nginx.conf"];
    let nginx = place.program("/usr/sbin/nginx", args).spawn();
    let up = eventually(LIMIT, || TcpStream::connect(("127.0.0.1", https)).is_ok());
    assert!(up, "{}", nginx.stderr_so_far());
    Served {
        place,
        app,
        http,
        https,
        _nginx: nginx,
    }
}

impl Served {
    /// curl, which knows our authority and where the name is.
    fn curl(&self, args: &[&str], path: &str) -> Output {
        let resolve = format!("{NAME}:{}:127.0.0.1", self.https);
        let url = format!("https://{NAME}:{}{path}", self.https);
        let fixed = ["-sS", "--cacert", "tls/chain.pem", "--resolve", &resolve];
        let args = [&fixed[..], args, &[&url]].concat();
        self.place.program("curl", args).run()
    }

    /// The status and the headers of an answer, in lower case.
    fn headers(&self, args: &[&str], path: &str) -> String {
        let args = [&["-D", "-", "-o", "/dev/null"], args].concat();
        self.curl(&args, path).ok().out().to_ascii_lowercase()
    }

    /// The statuses of so many requests, one after the other over one connection.
    fn statuses(&self, path: &str, count: usize) -> Vec<String> {
        let args = ["-o", "/dev/null", "-w", "%{http_code}\n"];
        let many = format!("{path}?[1-{count}]");
        let output = self.curl(&args, &many).ok();
        output.out().lines().map(str::to_owned).collect()
    }

    fn s_client(&self, args: &[&str], input: &str) -> Output {
        let address = format!("127.0.0.1:{}", self.https);
        let fixed = ["s_client", "-connect", &address, "-servername", NAME];
        let fixed = [&fixed[..], &["-CAfile", "tls/chain.pem"], args].concat();
        self.place.program("openssl", fixed).stdin(input).run()
    }
}

/// What `limit` requests a minute let through: so many at once, and one for each that has aged.
#[track_caller]
fn limited(served: &Served, path: &str, limit: usize) {
    let begin = Instant::now();
    let statuses = served.statuses(path, 2 * limit);
    let aged = begin.elapsed().as_secs() as usize * limit / 60 + 1;
    let passed = statuses.iter().filter(|status| *status == "200").count();
    assert_eq!(
        statuses
            .iter()
            .take(limit)
            .filter(|one| *one == "200")
            .count(),
        limit,
        "{path}"
    );
    assert!((limit..=limit + aged).contains(&passed), "{path}: {passed}");
    let refused = statuses.iter().filter(|status| *status == "429").count();
    assert_eq!(passed + refused, 2 * limit, "{statuses:?}");
}

#[test]
fn rgrid_is_served_as_promised() {
    promises(
        "rgrid",
        "/api/v1/auth/login",
        "/api/v1/executions",
        "/api/v1/health",
    );
}

#[test]
fn toolkitrag_is_served_as_promised() {
    promises(
        "toolkitrag",
        "/api/auth/login",
        "/toolkit/search",
        "/health",
    );
}

fn promises(profile: &str, login: &str, api: &str, health: &str) {
    let [responder] = free();
    let site = served(profile, responder);

    // The first address leads to the safe one and loses nothing of the path.
    let http = format!("http://127.0.0.1:{}/a/b?c=d", site.http);
    let host = format!("Host: {NAME}");
    let args = ["-sS", "-D", "-", "-o", "/dev/null", "-H", &host, &http];
    let redirected = site.place.program("curl", args).run().ok().out();
    assert!(redirected.starts_with("HTTP/1.1 301 "), "{redirected}");
    let location = format!("\r\nLocation: https://{NAME}/a/b?c=d\r\n");
    assert!(redirected.contains(&location), "{redirected}");

    // Each header once, also where the app says something else, and on answers of nginx itself.
    let ok = site.headers(&[], "/");
    let hidden = site.headers(&[], "/.env");
    assert!(ok.starts_with("http/2 200"), "{ok}");
    assert!(hidden.starts_with("http/2 404"), "{hidden}");
    assert!(
        site.headers(&[], "/static/.git/config")
            .starts_with("http/2 404")
    );
    for headers in [&ok, &hidden] {
        for line in [
            "strict-transport-security: max-age=31536000; includesubdomains",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: strict-origin-when-cross-origin",
            "permissions-policy: camera=(), microphone=(), geolocation=()",
            "server: nginx",
        ] {
            let name = line.split_once(':').expect("a header").0;
            let prefix = format!("{name}:");
            let same: Vec<&str> = headers
                .lines()
                .filter(|one| one.starts_with(&prefix))
                .collect();
            assert_eq!(same, [line], "{headers}");
        }
    }
    let packed = site.headers(&["-H", "Accept-Encoding: gzip"], "/");
    assert!(packed.contains("\ncontent-encoding: gzip\r"), "{packed}");

    // What a client says of itself is not passed on.
    let forged = "X-Forwarded-For: 203.0.113.9";
    site.headers(&["-H", forged, "-H", "X-Forwarded-Proto: http"], "/forged");
    let heads = site.app.heads();
    let head = heads.iter().find(|head| head.starts_with("get /forged "));
    let head = head.expect("the request");
    assert!(!head.contains("203.0.113.9"), "{head}");
    for line in [
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: https",
        &format!("host: {NAME}"),
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }

    // Old protocols are refused by the server, the newer ones are not.
    for (version, good) in [
        ("-tls1", false),
        ("-tls1_1", false),
        ("-tls1_2", true),
        ("-tls1_3", true),
    ] {
        let cipher = if good { "DEFAULT" } else { "ALL@SECLEVEL=0" };
        let output = site.s_client(&[version, "-cipher", cipher], "Q\n");
        if good {
            assert!(output.out().contains("Verify return code: 0"), "{output:?}");
        } else {
            let told = output.err().contains("alert protocol version");
            assert!(output.code() != 0 && told, "{output:?}");
        }
    }

    limited(&site, login, 5);
    limited(&site, api, 20);
    let free = site.statuses(health, 40);
    assert!(free.iter().all(|status| status == "200"), "{free:?}");

    // 50 MiB pass, and a byte more does not.
    let body = |bytes: usize| {
        site.place.write("body", vec![b'x'; bytes]);
        site.headers(&["--data-binary", "@body", "-H", "Expect:"], "/upload")
    };
    assert!(body(BODY_MAX).starts_with("http/2 200"));
    assert!(body(BODY_MAX + 1).starts_with("http/2 413"));

    // A websocket goes through in both directions.
    let ask = format!(
        "GET /ws HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{WORD}"
    );
    let spoken = site.s_client(&["-quiet", "-alpn", "http/1.1"], &ask).out();
    assert!(spoken.starts_with("HTTP/1.1 101 "), "{spoken}");
    assert!(spoken.ends_with(&format!("\r\n\r\n{WORD}")), "{spoken}");

    // The certificate's state comes with the handshake; nginx asks for it after the first one.
    let ocsp = format!(
        "ocsp -port {responder} -index tls/index -CA tls/chain.pem -rsigner tls/chain.pem -rkey tls/ca.key -ignore_err"
    );
    let responder = site.place.program("openssl", ocsp.split(' ')).spawn();
    let waits = || responder.stderr_so_far() + &responder.stdout_so_far();
    assert!(
        eventually(LIMIT, || waits().contains("waiting for OCSP")),
        "{}",
        waits()
    );
    let stapled = eventually(LIMIT, || {
        let output = site.s_client(&["-status"], "Q\n").out();
        output.contains("OCSP Response Status: successful") && output.contains("Cert Status: good")
    });
    assert!(stapled, "{}\n{}", site.place.read("error.log"), waits());
}
