//! Who listens on the ports of this machine: the kernel's table, the processes, docker.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rg_common::program::Program;

/// How long docker may take to answer, in seconds.
const DOCKER_SECONDS: &str = "10";
/// What `docker ps` may print.
const DOCKER_BYTES_MAX: usize = 1 << 20;

/// Somebody who holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A container that publishes it.
    Container(String),
    /// A process: its number, its name, the unit that it belongs to.
    Process(u32, String, Option<String>),
    /// A socket of which we may not see the process.
    Hidden,
}

impl Holder {
    /// For a message.
    pub fn shown(&self) -> String {
        match self {
            Holder::Container(name) => format!("the container {name}"),
            Holder::Process(pid, name, Some(unit)) => format!("{name} (process {pid}, {unit})"),
            Holder::Process(pid, name, None) => format!("{name} (process {pid})"),
            Holder::Hidden => "a process that only root can see".to_owned(),
        }
    }
}

/// What is known of the machine.
#[derive(Debug, Default)]
pub struct Facts {
    /// Who holds which TCP port.
    pub listeners: BTreeMap<u16, Holder>,
    /// What could not be looked at, and why.
    pub unknown: Vec<String>,
}

/// Looks once.
pub fn facts() -> Facts {
    let mut facts = Facts::default();
    let mut sockets = BTreeMap::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => sockets.extend(listening(&text)),
            // A kernel without IPv6 has no second table.
            Err(_) if table.ends_with('6') => {}
            Err(error) => facts.unknown.push(format!("cannot read {table}: {error}")),
        }
    }
    let holders = processes(Path::new("/proc"), &sockets);
    for (inode, port) in sockets {
        let holder = holders.get(&inode).cloned().unwrap_or(Holder::Hidden);
        facts.listeners.insert(port, holder);
    }
    match published() {
        Ok(text) => {
            let published = containers(&text).into_iter();
            facts
                .listeners
                .extend(published.map(|(port, name)| (port, Holder::Container(name))));
        }
        Err(why) => facts.unknown.extend(why),
    }
    facts
}

/// Inode and port of the sockets in state LISTEN, of a table of the kernel.
fn listening(table: &str) -> Vec<(u64, u16)> {
    let rows = table.lines().skip(1).filter_map(|row| {
        let fields: Vec<&str> = row.split_whitespace().collect();
        let port = fields.get(1)?.rsplit_once(':')?.1;
        let listens = *fields.get(3)? == "0A";
        let inode = fields.get(9)?.parse().ok()?;
        listens.then_some((inode, u16::from_str_radix(port, 16).ok()?))
    });
    rows.collect()
}

fn processes(proc: &Path, sockets: &BTreeMap<u64, u16>) -> BTreeMap<u64, Holder> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        // Another user's process, or one that has ended: its sockets stay hidden.
        for fd in fs::read_dir(entry.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let Ok(target) = fs::read_link(fd.path()) else {
                continue;
            };
            let target = target.to_string_lossy();
            let inode = target
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'));
            let Some(inode) = inode.and_then(|inode| inode.parse::<u64>().ok()) else {
                continue;
            };
            if sockets.contains_key(&inode) {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                let group = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
                found.insert(
                    inode,
                    Holder::Process(pid, name.trim().to_owned(), unit(&group)),
                );
            }
        }
    }
    found
}

/// The unit that a control group belongs to: `…/rgrid-api-staging.service`.
fn unit(cgroup: &str) -> Option<String> {
    let path = cgroup.lines().next()?.rsplit(':').next()?;
    let unit = path.rsplit('/').find(|part| part.ends_with(".service"))?;
    Some(unit.to_owned())
}

/// What docker says, or why nothing; `Ok` without text where there is no docker.
fn published() -> Result<String, Option<String>> {
    let docker = Program::new("timeout")
        .args([DOCKER_SECONDS, "docker", "ps", "--format"])
        .arg("{{.Names}}\t{{.Ports}}");
    let failure = match docker.output(DOCKER_BYTES_MAX) {
        Ok(output) => return Ok(String::from_utf8_lossy(&output).into_owned()),
        Err(failure) => failure,
    };
    let said = failure.to_string();
    match super::exit_status(&failure) {
        // No such program, or a client without a daemon: nothing is published.
        Some(126 | 127) => Err(None),
        _ if said.contains("Is the docker daemon running")
            || said.contains("connect to the docker API") =>
        {
            Err(None)
        }
        Some(124) => Err(Some(format!(
            "docker did not answer within {DOCKER_SECONDS} s"
        ))),
        _ => Err(Some(format!("docker cannot be asked: {said}"))),
    }
}

/// Ports and containers of `docker ps`: `127.0.0.1:5432->5432/tcp, [::]:9000-9001->9000-9001/tcp`.
fn containers(text: &str) -> Vec<(u16, String)> {
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((name, ports)) = line.split_once('\t') else {
            continue;
        };
        for mapping in ports.split(", ") {
            let Some((host, _)) = mapping.split_once("->") else {
                continue;
            };
            let range = host.rsplit(':').next().unwrap_or_default();
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
                found.extend((first..=last).map(|port| (port, name.to_owned())));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_tables_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0\n\
            \x20  1: 0100007F:9C40 0100007F:1F40 01 00000000:00000000 00:00000000 00000000     0        0 12346 1 0\n";
        assert_eq!(listening(table), [(12345, 8000)]);
        let ps = "postgres-staging\t127.0.0.1:5433->5432/tcp\nportainer\t0.0.0.0:8000->8000/tcp, [::]:8000->8000/tcp, 0.0.0.0:9443->9443/tcp\nplain\t5432/tcp\nminio\t127.0.0.1:9000-9001->9000-9001/tcp\n";
        let found = containers(ps);
        let ports: Vec<u16> = found.iter().map(|(port, _)| *port).collect();
        assert_eq!(ports, [5433, 8000, 8000, 9443, 9000, 9001]);
        assert_eq!(
            unit("0::/system.slice/rgrid-api-staging.service\n").as_deref(),
            Some("rgrid-api-staging.service")
        );
        assert_eq!(unit("0::/user.slice/session-1.scope\n"), None);
    }

    #[test]
    fn a_socket_of_ours_is_found_with_our_name() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let facts = facts();
        let Some(Holder::Process(pid, ..)) = facts.listeners.get(&port) else {
            panic!("{:?}", facts.listeners);
        };
        assert_eq!(*pid, std::process::id());
    }
}
