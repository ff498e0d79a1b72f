//! The layout of a custom archive's header and table of contents, version by version.
//!
//! From `pg_dump`'s archive format: an integer is a sign byte and `int size` bytes, lowest first; a
//! string is an integer length (negative: none) and its bytes; an offset is a state byte and
//! `offset size` bytes. Which fields exist depends on the minor version: 1.12 (9.0) to 1.13 (2018),
//! 1.14 (table access methods, 12 to 15), 1.15 (compression algorithm, 16), 1.16 (kind of relation,
//! 17 and 18).

/// The minor versions of archive format 1 that are understood.
pub(super) const MINOR_VERSIONS: std::ops::RangeInclusive<u8> = 12..=16;

/// How a field is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Byte,
    Int,
    Text,
    Offset,
}

/// What a field says; most only need to be passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// 0 for none, else a gzip level.
    CompressionLevel,
    /// 0 none, 1 gzip, 2 lz4, 3 zstd.
    CompressionAlgorithm,
    Database,
    ServerVersion,
    DumpVersion,
    EntryCount,
    DumpId,
    /// Whether a block of data belongs to the entry.
    HasData,
    Tag,
    Description,
    /// 2 before the data, 3 data, 4 after the data; 1 none of its own.
    Section,
    Definition,
    CopyStatement,
    Namespace,
    Owner,
    /// One of a list of texts, which ends with an absent one.
    Dependency,
    /// Of no concern here.
    Other,
}

type Layout = [(Field, Kind, std::ops::RangeInclusive<u8>)];

/// What follows the magic, the version, the sizes and the format.
pub(super) const HEADER: &Layout = &[
    (Field::CompressionLevel, Kind::Int, 0..=14),
    (Field::CompressionAlgorithm, Kind::Byte, 15..=255),
    (Field::Other, Kind::Int, 0..=255), // second,
    (Field::Other, Kind::Int, 0..=255), // minute,
    (Field::Other, Kind::Int, 0..=255), // hour,
    (Field::Other, Kind::Int, 0..=255), // day,
    (Field::Other, Kind::Int, 0..=255), // month,
    (Field::Other, Kind::Int, 0..=255), // year since 1900,
    (Field::Other, Kind::Int, 0..=255), // daylight saving
    (Field::Database, Kind::Text, 0..=255),
    (Field::ServerVersion, Kind::Text, 0..=255),
    (Field::DumpVersion, Kind::Text, 0..=255),
    (Field::EntryCount, Kind::Int, 0..=255),
];

/// One entry of the table of contents.
pub(super) const ENTRY: &Layout = &[
    (Field::DumpId, Kind::Int, 0..=255),
    (Field::HasData, Kind::Int, 0..=255),
    (Field::Other, Kind::Text, 0..=255), // catalog's oid
    (Field::Other, Kind::Text, 0..=255), // object's oid
    (Field::Tag, Kind::Text, 0..=255),
    (Field::Description, Kind::Text, 0..=255),
    (Field::Section, Kind::Int, 0..=255),
    (Field::Definition, Kind::Text, 0..=255),
    (Field::Other, Kind::Text, 0..=255), // DROP statement
    (Field::CopyStatement, Kind::Text, 0..=255),
    (Field::Namespace, Kind::Text, 0..=255),
    (Field::Other, Kind::Text, 0..=255),  // tablespace
    (Field::Other, Kind::Text, 14..=255), // table access method
    (Field::Other, Kind::Int, 16..=255),  // kind of relation
    (Field::Owner, Kind::Text, 0..=255),
    (Field::Other, Kind::Text, 0..=255), // WITH OIDS
    (Field::Dependency, Kind::Text, 0..=255),
    (Field::Other, Kind::Offset, 0..=255), // where the data lie, unknown in a pipe
];

/// The layout's first field at or after `from` that an archive of this minor version has.
pub(super) fn field(layout: &Layout, from: usize, minor: u8) -> Option<(usize, Field, Kind)> {
    let fields = layout.iter().enumerate().skip(from);
    let mut present = fields.filter(|(_, (_, _, versions))| versions.contains(&minor));
    present
        .next()
        .map(|(at, (field, kind, _))| (at, *field, *kind))
}
