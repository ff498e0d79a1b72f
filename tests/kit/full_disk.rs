//! A disk that is really full: a small tmpfs that answers `ENOSPC`.
//!
//! Root mounts it in the sandbox. An ordinary user gets it in a user and mount namespace of its
//! own, reached through `/proc/PID/root`; where the machine forbids that too, the test fails and
//! says so. In both cases a shell holds the mount and takes it away when the test ends, also
//! when the test is killed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::sandbox::Sandbox;

/// `$1` mount point, `$2` size in MiB. Our end of the pipe closes: the mount goes.
const HOLDER: &str = r#"
mount -t tmpfs -o "size=${2}m,mode=0755" rg-full-disk "$1" || exit 1
echo mounted
cat >/dev/null
umount -l "$1"
"#;

/// A mounted file system of a few MiB.
pub struct FullDisk {
    path: PathBuf,
    holder: Child,
}

impl FullDisk {
    /// Mounts one of `mib` MiB as `name` in the sandbox.
    pub fn mount(sandbox: &Sandbox, name: &str, mib: u32) -> Self {
        let point = sandbox.path(name);
        fs::create_dir_all(&point).expect("the mount point");
        let root = rustix::process::geteuid().is_root();
        let mut command = if root {
            Command::new("/bin/sh")
        } else {
            let mut unshare = Command::new("unshare");
            unshare.args(["--user", "--map-root-user", "--mount", "/bin/sh"]);
            unshare
        };
        let mut holder = command
            .args(["-c", HOLDER, "rg-full-disk"])
            .arg(&point)
            .arg(mib.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("the shell that holds the mount");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).ok();
        assert!(
            line.trim() == "mounted",
            "cannot mount a small tmpfs: run as root, or allow user namespaces \
             (sysctl kernel.unprivileged_userns_clone=1, on Ubuntu 24.04 \
             kernel.apparmor_restrict_unprivileged_userns=0)"
        );
        let path = if root {
            point
        } else {
            let inside = point.strip_prefix("/").expect("an absolute path");
            Path::new("/proc")
                .join(holder.id().to_string())
                .join("root")
                .join(inside)
        };
        FullDisk { path, holder }
    }

    /// Where it is. For an ordinary user this goes through a link of `/proc`: do not resolve it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `filler` until only about `bytes` are free.
    pub fn fill_but(&self, bytes: u64) {
        let free = {
            let stat = rustix::fs::statvfs(&self.path).expect("the state of the small disk");
            stat.f_bavail * stat.f_frsize
        };
        let mut filler = fs::File::create(self.path.join("filler")).expect("the filler");
        let zeros = vec![0; 4096];
        for _ in 0..free.saturating_sub(bytes) / 4096 {
            filler.write_all(&zeros).expect("room for the filler");
        }
    }

    /// Makes room again.
    pub fn free(&self) {
        // Emptied first: a child just forked by another test may still hold the file open.
        fs::write(self.path.join("filler"), b"").expect("the filler");
        fs::remove_file(self.path.join("filler")).expect("the filler");
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        self.holder.wait().ok();
    }
}
