//! The one main that all tools share: parse → run → print → exit code.
//!
//! Exit codes: 0 done and well · 1 done, and it is bad news · 2 could not do it, or could not
//! tell. Stdout is data, stderr is for people. The tokio runtime, the log and the signals are set
//! up here; the tool's work runs on a thread that may block.

use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::{self, Config};
use crate::failure::{Failure, OrFail, Result};
use crate::report::{self, Outcome, Plain, Report};
use crate::{program, stop};

/// What every tool's `--help` ends with.
pub const EXIT_CODES: &str = "Exit codes:\n  0  done and well\n  1  done, and it is bad news (damage, a difference, drift)\n  2  could not do it, or could not tell";

/// The options all tools have.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "RG_CONFIG", default_value = config::DEFAULT_PATH, global = true)]
    pub config: PathBuf,
    /// One JSON document on stdout, nothing else there
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more on stderr (twice: everything)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Say only what went wrong; nothing when all is well
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// How the log on stderr is written
    #[arg(
        long,
        value_enum,
        value_name = "FORM",
        default_value = "human",
        global = true
    )]
    pub log: LogForm,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// For people.
    Human,
    /// A JSON object a line.
    Json,
    /// With the priorities that journald reads.
    Journal,
}

/// What enters a tool's run from outside: the configuration's place, the time, the terminal.
pub struct Context {
    /// The options.
    pub common: Common,
    /// The tool's name and version, for manifests.
    pub tool: String,
    /// The time at the start.
    pub now: Timestamp,
    /// The host's time zone.
    pub zone: TimeZone,
    /// The host's name.
    pub hostname: String,
    /// The network's runtime.
    pub network: tokio::runtime::Handle,
}

impl Context {
    /// Reads the configuration.
    pub fn config(&self) -> Result<Config> {
        Config::read(&self.common.config, &self.hostname)
    }

    /// The time now; for ends and durations. Time enters nowhere else.
    #[allow(clippy::disallowed_methods)]
    pub fn clock(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Whether a progress bar may be drawn.
    pub fn progress_wanted(&self) -> bool {
        !self.common.quiet && !self.common.json && io::stderr().is_terminal()
    }

    /// Asks before something is overwritten. `yes` answers for scripts; without a terminal and
    /// without it, it refuses.
    pub fn confirm(&self, question: &str, yes: bool) -> Result<()> {
        if yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::new(format!("not confirmed: {question}"))
                .hint("answer with --yes where nobody can be asked"));
        }
        let mut stderr = io::stderr().lock();
        write!(stderr, "{question} [y/N] ")
            .and_then(|()| stderr.flush())
            .or_fail(|| "cannot ask".to_owned())?;
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .or_fail(|| "cannot read the answer".to_owned())?;
        if matches!(answer.trim(), "y" | "Y" | "yes" | "Yes") {
            return Ok(());
        }
        Err(Failure::new("not confirmed; nothing was changed"))
    }
}

/// A tool: its arguments and its run.
pub trait Tool: Parser + Send + 'static {
    /// `rg-backup`
    const NAME: &'static str;
    /// The options all tools have.
    fn common(&self) -> &Common;
    /// Does it, on a thread that may block.
    fn run(self, context: &Context) -> Result<Box<dyn Report>>;
}

/// The whole of a tool's `main`.
pub fn main<T: Tool>() -> ExitCode {
    run::<T>(std::env::args_os())
}

/// The same with given arguments, the first being the program's name.
pub fn run<T: Tool>(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let json = args.iter().any(|arg| arg == "--json");
    let tool = match T::try_parse_from(args) {
        Ok(tool) => tool,
        Err(error) => {
            // Help and version are asked for; anything else is a usage error.
            let code = if error.use_stderr() { 2 } else { 0 };
            error.print().ok();
            if error.use_stderr() && json {
                let text = error.to_string();
                let text = text.trim_start_matches("error: ").lines().next();
                say_document(text.unwrap_or_default(), &["--help shows the usage"]);
            }
            return ExitCode::from(code);
        }
    };
    let common = tool.common().clone();
    start_log(&common);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // Fails only when a provider is installed already.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    match work(tool, &common) {
        Ok(Outcome::Well) => ExitCode::SUCCESS,
        Ok(Outcome::BadNews) => ExitCode::from(1),
        Ok(Outcome::Incomplete) => ExitCode::from(2),
        Ok(Outcome::Plugin(code)) => ExitCode::from(code),
        Err(failure) => {
            say_failure(T::NAME, &failure, common.json);
            ExitCode::from(2)
        }
    }
}

fn work<T: Tool>(tool: T, common: &Common) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .or_fail(|| "cannot start the network's runtime".to_owned())?;
    runtime.spawn(watch_signals());
    #[allow(clippy::disallowed_methods)]
    let now = Timestamp::now();
    let context = Context {
        common: common.clone(),
        tool: format!("{} {}", T::NAME, env!("CARGO_PKG_VERSION")),
        now,
        zone: TimeZone::system(),
        hostname: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        network: runtime.handle().clone(),
    };
    // Stores in buckets take the runtime from the thread that they are opened on.
    let _inside = runtime.enter();
    let report = tool.run(&context)?;
    let outcome = report.outcome();
    // Cron mails what is printed.
    let silent = common.quiet && !common.json && outcome == Outcome::Well;
    if !silent {
        report::print(&*report, common.json).or_fail(|| "cannot write to stdout".to_owned())?;
    }
    Ok(outcome)
}

/// What `completions SHELL` says: the script.
pub fn completions<T: Tool>(shell: clap_complete::Shell) -> Box<dyn Report> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut T::command(), T::NAME, &mut script);
    let text = String::from_utf8_lossy(&script).into_owned();
    Box::new(Plain {
        document: text.clone(),
        text,
        outcome: Outcome::Well,
    })
}

async fn watch_signals() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    stop::request();
    program::end_all();
    tokio::time::sleep(stop::GRACE).await;
    tracing::error!("stopped by a signal before all was cleaned up; the next run does that");
    // What is left half done is invisible, and the next run removes it.
    std::process::exit(2);
}

/// The failure and its hints, for people on stderr and, with `--json`, as the one document.
#[allow(clippy::print_stderr)]
fn say_failure(tool: &str, failure: &Failure, json: bool) {
    let stderr = io::stderr();
    let red = report::colour_wanted(stderr.is_terminal());
    let name = if red {
        format!("\x1b[1;31m{tool}\x1b[0m")
    } else {
        tool.to_owned()
    };
    eprintln!("{name}: {failure}");
    for hint in failure.hints() {
        eprintln!("hint: {hint}");
    }
    if json {
        say_document(&failure.to_string(), &failure.hints());
    }
}

/// The one document of a failure.
#[allow(clippy::print_stdout)]
fn say_document(error: &str, hints: &[&str]) {
    let document = serde_json::json!({ "error": error, "hints": hints });
    println!("{document:#}");
}

fn start_log(common: &Common) {
    use tracing_subscriber::filter::LevelFilter;
    let level = match (common.quiet, common.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) if common.log == LogForm::Human => LevelFilter::WARN,
        (false, 0 | 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_target(false);
    // A logger set by a test's harness stays.
    let done = match common.log {
        LogForm::Human => builder
            // No colour here: tracing-subscriber has it only with a further dependency.
            .with_ansi(false)
            .without_time()
            .try_init(),
        LogForm::Json => builder.json().try_init(),
        LogForm::Journal => builder.with_ansi(false).event_format(Journal).try_init(),
    };
    done.ok();
}

/// `<4>text key=value`: what journald takes as a priority and a message.
struct Journal;

impl<S, N> tracing_subscriber::fmt::FormatEvent<S, N> for Journal
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    N: for<'a> tracing_subscriber::fmt::FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &tracing_subscriber::fmt::FmtContext<'_, S, N>,
        mut writer: tracing_subscriber::fmt::format::Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        let priority = match *event.metadata().level() {
            tracing::Level::ERROR => 3,
            tracing::Level::WARN => 4,
            tracing::Level::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{priority}>")?;
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
