//! An ordered map that can be copied at once: sorted chunks behind a shared spine.
//!
//! `clone` is two reference counts. The first write after a clone copies the spine (one pointer per chunk) and the chunk
//! that it touches; writes between clones copy nothing. A persistent tree would copy less at a million objects and read
//! slower at any size; measured figures stand beside the tests.

use std::sync::Arc;

/// Elements of a chunk: large enough that the spine stays short, small enough that copying one is nothing.
const CHUNK_MAX: usize = 128;

/// What the map is ordered by.
pub(crate) trait Ordered {
    /// Unique among the elements of a map.
    fn order(&self) -> &[u8];
}

/// See the module.
#[derive(Clone)]
pub(crate) struct CowMap<T> {
    /// No chunk is empty; every element of a chunk sorts before every element of the next.
    chunks: Arc<Vec<Arc<Vec<T>>>>,
    len: usize,
}

impl<T> Default for CowMap<T> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

impl<T: Ordered + Clone> CowMap<T> {
    /// Builds a map from elements in rising order, as a list of a store gives them.
    pub(crate) fn from_sorted(elements: impl IntoIterator<Item = T>) -> Self {
        let mut map = Self::default();
        for element in elements {
            map.insert(element);
        }
        map
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&T> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let at = chunk.binary_search_by(|element| element.order().cmp(key)).ok()?;
        chunk.get(at)
    }

    /// Puts the element in, returns the one that had its key.
    pub(crate) fn insert(&mut self, element: T) -> Option<T> {
        let spine = Arc::make_mut(&mut self.chunks);
        if spine.is_empty() {
            spine.push(Arc::new(vec![element]));
            self.len = 1;
            return None;
        }
        // Behind the last key it belongs to the last chunk.
        let chunk_at = chunk_of(spine, element.order()).min(spine.len() - 1);
        let is_last = chunk_at == spine.len() - 1;
        let chunk = Arc::make_mut(&mut spine[chunk_at]);
        let at = match chunk.binary_search_by(|other| other.order().cmp(element.order())) {
            Ok(at) => return Some(std::mem::replace(&mut chunk[at], element)),
            Err(at) => at,
        };
        self.len += 1;
        if chunk.len() < CHUNK_MAX {
            chunk.insert(at, element);
        } else if is_last && at == chunk.len() {
            // Rising keys (a first list, generated names) leave full chunks behind, not half-full ones.
            spine.push(Arc::new(vec![element]));
        } else {
            let mut upper = chunk.split_off(CHUNK_MAX / 2);
            match at.checked_sub(chunk.len()) {
                Some(at) => upper.insert(at, element),
                None => chunk.insert(at, element),
            }
            spine.insert(chunk_at + 1, Arc::new(upper));
        }
        None
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<T> {
        let chunk_at = self.chunk_of(key);
        let at = self.chunks.get(chunk_at)?.binary_search_by(|element| element.order().cmp(key)).ok()?;
        let spine = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut spine[chunk_at]);
        let removed = chunk.remove(at);
        let left = chunk.len();
        self.len -= 1;
        if left == 0 {
            spine.remove(chunk_at);
        } else if let Some(next) = spine.get(chunk_at + 1)
            && left + next.len() <= CHUNK_MAX / 2
        {
            let next = spine.remove(chunk_at + 1);
            Arc::make_mut(&mut spine[chunk_at]).extend(next.iter().cloned());
        }
        Some(removed)
    }

    /// The elements at or behind `start` whose key begins with `prefix`, in order.
    pub(crate) fn range<'a>(&'a self, prefix: &'a [u8], start: &[u8]) -> impl Iterator<Item = &'a T> + 'a {
        let (chunk_at, at) = self.seek(prefix.max(start));
        let first = self.chunks.get(chunk_at).map_or(&[][..], |chunk| &chunk[at..]);
        let rest = self.chunks.get(chunk_at + 1..).unwrap_or_default();
        first
            .iter()
            .chain(rest.iter().flat_map(|chunk| chunk.iter()))
            .take_while(move |element| element.order().starts_with(prefix))
    }

    /// How many elements `range` would yield, without visiting them.
    pub(crate) fn count(&self, prefix: &[u8], start: &[u8]) -> usize {
        let low = self.rank(prefix.max(start));
        let high = crate::store::prefix_end(prefix).map_or(self.len, |end| self.rank(&end));
        high.saturating_sub(low)
    }

    /// How many elements sort before `key`.
    fn rank(&self, key: &[u8]) -> usize {
        let (chunk_at, at) = self.seek(key);
        self.chunks[..chunk_at].iter().map(|chunk| chunk.len()).sum::<usize>() + at
    }

    /// Where the first element not below `key` stands.
    fn seek(&self, key: &[u8]) -> (usize, usize) {
        let chunk_at = self.chunk_of(key);
        let at = self
            .chunks
            .get(chunk_at)
            .map_or(0, |chunk| chunk.partition_point(|element| element.order() < key));
        (chunk_at, at)
    }

    fn chunk_of(&self, key: &[u8]) -> usize {
        chunk_of(&self.chunks, key)
    }
}

/// The first chunk whose last element is not below `key`: the only one that can hold it.
fn chunk_of<T: Ordered>(spine: &[Arc<Vec<T>>], key: &[u8]) -> usize {
    spine.partition_point(|chunk| chunk.last().is_some_and(|last| last.order() < key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Pair(String, u32);

    impl Ordered for Pair {
        fn order(&self) -> &[u8] {
            self.0.as_bytes()
        }
    }

    fn all(map: &CowMap<Pair>) -> Vec<Pair> {
        map.range(b"", b"").cloned().collect()
    }

    /// Random writes against std's map, with copies taken on the way: each copy stays as it was.
    #[test]
    fn copies_never_change() {
        let mut rng = StdRng::seed_from_u64(7);
        let (mut map, mut model) = (CowMap::default(), BTreeMap::new());
        let mut copies = Vec::new();
        for step in 0..20_000u32 {
            let key =
                format!("{}/{:03}", ["a", "b", "ba", "c"][rng.random_range(0..4)], rng.random_range(0..400));
            if rng.random_bool(0.6) {
                let old = map.insert(Pair(key.clone(), step));
                assert_eq!(old.map(|pair: Pair| pair.1), model.insert(key, step));
            } else {
                assert_eq!(map.remove(key.as_bytes()).map(|pair| pair.1), model.remove(&key));
            }
            assert_eq!(map.len(), model.len());
            if step % 1000 == 0 {
                copies.push((map.clone(), model.clone()));
            }
        }
        copies.push((map, model));
        for (map, model) in copies {
            assert!(map.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK_MAX));
            assert_eq!(
                all(&map),
                model.iter().map(|(key, value)| Pair(key.clone(), *value)).collect::<Vec<_>>()
            );
            for (prefix, start) in
                [("", ""), ("b", ""), ("b/", ""), ("b/", "b/200"), ("b/", "c"), ("b/", "a"), ("z", "")]
            {
                let want: Vec<_> =
                    model.keys().filter(|k| k.starts_with(prefix) && k.as_str() >= start).cloned().collect();
                let got: Vec<_> =
                    map.range(prefix.as_bytes(), start.as_bytes()).map(|pair| pair.0.clone()).collect();
                assert_eq!(got, want, "{prefix} from {start}");
                assert_eq!(
                    map.count(prefix.as_bytes(), start.as_bytes()),
                    want.len(),
                    "{prefix} from {start}"
                );
            }
        }
    }
}
