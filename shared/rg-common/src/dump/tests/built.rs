//! Small archives in every layout, for what no real `pg_dump` at hand writes.

/// What one entry of the table of contents says, and its data.
#[derive(Clone)]
pub(super) struct Built {
    pub id: i64,
    pub kind: &'static str,
    pub name: &'static str,
    pub definition: &'static str,
    pub copy: &'static str,
    pub block: Option<Vec<u8>>,
}

impl Built {
    /// A table `s.NAME` with one column `a`; `text` is its `COPY` text with the closing line.
    pub fn table(id: i64, name: &'static str, copy: &'static str, text: &[u8]) -> Self {
        let mut block = vec![1];
        int(&mut block, id);
        chunk(&mut block, text);
        int(&mut block, 0);
        Built {
            id,
            kind: "TABLE DATA",
            name,
            definition: "",
            copy,
            block: Some(block),
        }
    }
}

/// An archive of version 1.`minor`, not compressed, or said to be by `compression`.
pub(super) fn archive(minor: u8, compression: u8, entries: &[Built]) -> Vec<u8> {
    let mut out = vec![b'P', b'G', b'D', b'M', b'P', 1, minor, 0, 4, 8, 1];
    match minor {
        ..=14 => int(&mut out, compression.into()),
        15.. => out.push(compression),
    }
    for date in [0, 0, 2, 1, 0, 126, 0] {
        int(&mut out, date);
    }
    for said in ["shop", "15.18", "15.18"] {
        text(&mut out, Some(said));
    }
    int(&mut out, entries.len() as i64);
    for entry in entries {
        int(&mut out, entry.id);
        int(&mut out, entry.block.is_some().into());
        for said in ["1259", "16384", entry.name, entry.kind] {
            text(&mut out, Some(said));
        }
        int(&mut out, 3);
        for said in [entry.definition, "DROP it", entry.copy, "s", ""] {
            text(&mut out, Some(said));
        }
        if minor >= 14 {
            text(&mut out, Some("heap"));
        }
        if minor >= 16 {
            int(&mut out, b'r'.into());
        }
        for said in [Some("owner"), Some("false"), Some("12"), Some("13"), None] {
            text(&mut out, said);
        }
        out.extend([1, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    for entry in entries {
        out.extend(entry.block.iter().flatten());
    }
    out
}

pub(super) fn int(out: &mut Vec<u8>, number: i64) {
    out.push(u8::from(number < 0));
    out.extend((number.unsigned_abs() as u32).to_le_bytes());
}

pub(super) fn chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    int(out, bytes.len() as i64);
    out.extend(bytes);
}

fn text(out: &mut Vec<u8>, said: Option<&str>) {
    match said {
        Some(said) => chunk(out, said.as_bytes()),
        None => int(out, -1),
    }
}
