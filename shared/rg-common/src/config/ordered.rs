//! A table of a TOML file in the order in which it is written.

use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A table whose entries keep the file's order. With `toml::Spanned<String>` as names they also know
/// where they stand.
pub struct Ordered<T, N = String>(pub Vec<(N, T)>);

impl<T, N> Default for Ordered<T, N> {
    fn default() -> Self {
        Ordered(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, N: Deserialize<'de>> Deserialize<'de> for Ordered<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T, N>(PhantomData<(T, N)>);
        impl<'de, T: Deserialize<'de>, N: Deserialize<'de>> Visitor<'de> for Entries<T, N> {
            type Value = Ordered<T, N>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T, N>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}
