//! Data shaped like the two reference deployments, for tests and demonstration alike.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::chance::Chance;
use crate::postgres::Postgres;
use crate::run::Tool;

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub enum Scale {
    /// About 2 MB of dump; loads in about a second.
    Small,
    /// About so many megabytes of uncompressed dump.
    Megabytes(u32),
}

/// The full scale of `tests/demo/load.sql`, in megabytes of uncompressed dump.
const FULL_MEGABYTES: f64 = 300.0;

/// Loading may take this long; 300 MB take about half a minute on an idle machine.
const LOAD_LIMIT: Duration = Duration::from_secs(3600);

/// Fills a database with the tables of both deployments, as `role`.
#[track_caller]
pub fn load_demo(cluster: &Postgres, database: &str, role: &str, scale: Scale) {
    let megabytes = match scale {
        Scale::Small => 2.0,
        Scale::Megabytes(megabytes) => f64::from(megabytes),
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/load.sql");
    let mut command = cluster.command("psql", database, role);
    command
        .args(["-Xq", "-v", "ON_ERROR_STOP=1", "-v"])
        .arg(format!("scale={}", megabytes / FULL_MEGABYTES))
        .arg("-f")
        .arg(script);
    Tool::new(command, "psql -f demo/load.sql")
        .time_limit(LOAD_LIMIT)
        .run()
        .ok();
}

/// Bytes of the largest upload.
const LARGEST: u64 = 48 * 1024;

/// Writes `count` files as users upload them: text and incompressible ones, nested folders, blanks,
/// quotes, accents and Chinese in names, empty files. The same count gives the same tree.
pub fn write_uploads(dir: &Path, count: u32) -> io::Result<()> {
    let mut chance = Chance::seeded(u64::from(count));
    let mut buffer = vec![0; LARGEST as usize];
    for number in 0..count {
        let folder = match number % 7 {
            0 => "2026/lecture notes".to_owned(),
            1 => format!(
                "2026/{:02}/{:02}",
                1 + number / 7 % 12,
                1 + number / 84 % 28
            ),
            2 => "übungen/größe".to_owned(),
            3 => "讲义".to_owned(),
            4 => format!("user-{}", number / 7 % 100),
            5 => "it's \"quoted\"".to_owned(),
            _ => format!("deep/{}/b/c/d/e", number / 7 % 20),
        };
        let folder = dir.join(folder);
        fs::create_dir_all(&folder)?;
        let text = number % 3 != 0;
        let size = match number % 50 {
            0 => 0,
            _ => 200 + chance.below(if text { 6_000 } else { LARGEST - 200 }),
        };
        let body = &mut buffer[..size as usize];
        if text {
            for (place, byte) in body.iter_mut().enumerate() {
                *byte = TEXT[(place + number as usize * 7) % TEXT.len()];
            }
            fs::write(folder.join(format!("note {number}.txt")), body)?;
        } else {
            chance.fill(body);
            let head = body.len().min(PDF.len());
            body[..head].copy_from_slice(&PDF[..head]);
            fs::write(folder.join(format!("scan_{number:05}.pdf")), body)?;
        }
    }
    Ok(())
}

const PDF: &[u8] = b"%PDF-1.7\n";
const TEXT: &[u8] = b"The mitochondrion is the powerhouse of the cell; cite your sources. \
    Question 4: explain why a backup that was never restored is a hope, not a backup.\n";
