//! A backup loaded by PostgreSQL's own programs: archives of any kind by `pg_restore`, scripts by
//! `psql`. For archives with nothing but rows in them `rows` is the faster way.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rg_common::ahead::Ahead;
use rg_common::postgres::Place;
use rg_common::program::Program;
use rg_common::secret::Secret;
use rg_common::store::free_bytes;
use rg_common::{Failure, OrFail, Result};

use super::Load;
use crate::scratch;
use crate::source::Checked;

/// PostgreSQL's programs say nothing on stdout; more than this is refused.
const PROGRAM_OUTPUT_BYTES: usize = 1 << 20;
/// How much is copied at once.
const COPY_BYTES: usize = 256 << 10;
/// What a loading session sets: safe for a database that nobody else sees and that is thrown away
/// when anything fails. The exchange commits synchronously, which makes all of it durable.
const LOADING: &str =
    "-c synchronous_commit=off -c maintenance_work_mem=256MB -c bytea_output=hex -c lock_timeout=0";

/// So few processors are busy with the jobs themselves: workers that help with one index would only
/// take time from the next one.
const FEW_PROCESSORS: usize = 2;

/// `pg_restore` by parts, with parallel jobs, from a file.
pub struct Parts {
    program: Program,
    jobs: usize,
    file: scratch::Folder,
}

impl Parts {
    /// A program for an archive that is to be written to [`Parts::path`].
    pub fn new(load: &Load<'_>) -> Result<Parts> {
        Ok(Parts {
            program: pg_restore(load)?,
            jobs: load.jobs,
            file: scratch::Folder::new(load.server.config, load.server.context, "dump")?,
        })
    }

    /// Where the archive is to be; it is gone when this is dropped.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// A new file there that only this user can read.
    pub fn create(&self) -> Result<File> {
        create(self.path())
    }

    /// Runs these sections.
    pub fn run(&self, sections: &[&str]) -> Result<()> {
        let program = self.program.clone().arg(format!("--jobs={}", self.jobs));
        let sections = sections.iter().map(|name| format!("--section={name}"));
        let program = program.args(sections).arg("--").arg(self.path());
        program.output(PROGRAM_OUTPUT_BYTES).map(drop)
    }

    /// Makes only these of the entries that come after the rows, by dump id, with so many jobs (all
    /// of them when none are named). `list` is where their list is to be.
    pub fn make(&self, entries: &[i64], list: &scratch::Folder, jobs: Option<usize>) -> Result<()> {
        let text: String = entries.iter().map(|id| format!("{id};\n")).collect();
        let what = || format!("cannot write {}", list.path().display());
        std::fs::remove_file(list.path()).ok();
        let mut file = create(list.path())?;
        file.write_all(text.as_bytes()).or_fail(what)?;
        let jobs = jobs.unwrap_or(self.jobs);
        let program = self.program.clone().arg("--section=post-data");
        let program = program
            .arg(format!("--jobs={jobs}"))
            .arg("--use-list")
            .arg(list.path());
        let program = program.arg("--").arg(self.path());
        program.output(PROGRAM_OUTPUT_BYTES).map(drop)
    }
}

fn create(path: &Path) -> Result<File> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .or_fail(|| format!("cannot write the dump to {}", path.display()))
}

/// Loads an archive up to its rows, where it can be split; the returned parts then still have to
/// run `post-data`. pg_restore with parallel jobs needs the plain dump as a file; where there is no
/// room for it, and in a container, it is streamed to one job.
pub fn load_archive(load: &Load<'_>) -> Result<Option<Parts>> {
    let parts = Parts::new(load)?;
    let folder = parts.path().parent().unwrap_or(Path::new("/"));
    let room =
        free_bytes(folder).is_some_and(|free| free > load.source.manifest.plain.bytes + (64 << 20));
    if load.server.place == Place::Local && load.jobs > 1 && room {
        let what = || format!("cannot write the dump to {}", parts.path().display());
        feed(load.open()?, &mut parts.create()?).map_err(|failure| failure.context(what()))?;
        parts.run(&["pre-data", "data"])?;
        return Ok(Some(parts));
    }
    if !room {
        tracing::warn!(
            "no room for the plain dump in {}: restoring with one job",
            folder.display()
        );
    }
    let mut writer = pg_restore(load)?.writer()?;
    feed(load.open()?, &mut writer)?;
    writer.finish().map(|()| None)
}

fn pg_restore(load: &Load<'_>) -> Result<Program> {
    let mut program =
        program(load, "pg_restore")?.args(["--exit-on-error", "--no-password", "--format=custom"]);
    if load.reading.no_owner {
        program = program.args(["--no-owner", "--no-acl"]);
    }
    Ok(program)
}

/// Loads a script, whole.
pub fn load_script(load: &Load<'_>) -> Result<()> {
    let program = program(load, "psql")?
        .args(["--no-psqlrc", "--quiet", "--no-password"])
        .args(["--set=ON_ERROR_STOP=1", "--file=-"]);
    let mut writer = program.writer()?;
    feed(load.open()?, &mut writer)?;
    writer.finish()
}

fn program(load: &Load<'_>, name: &str) -> Result<Program> {
    let server = load.server;
    let program = server
        .place
        .program(name, &load.url(), server.admin.version())?;
    let mut options = LOADING.to_owned();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if processors <= FEW_PROCESSORS && load.jobs >= processors {
        options.push_str(" -c max_parallel_maintenance_workers=0");
    }
    Ok(program
        .arg(format!("--dbname={}", load.name))
        .env("PGOPTIONS", Secret::new(options)))
}

/// Copies to the end.
fn feed(mut from: Ahead<Checked>, to: &mut impl Write) -> Result<()> {
    let mut piece = vec![0; COPY_BYTES];
    loop {
        let length = match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::from_io("cannot read the backup", error)),
        };
        to.write_all(&piece[..length])
            .map_err(|error| Failure::from_io("cannot pass it on", error))?;
    }
}
