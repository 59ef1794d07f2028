//! The tree: an object while a write is being decided. Everywhere else objects are encoded bytes.
//!
//! A tree has no schema of its own; `copepod-schema` types say what a member means and `copepod-codec` turns bytes into
//! trees and back. Invariants: a [`Map`] is sorted by key and holds each key once; numbers keep JSON's int/float split
//! (an integer that fits `i64` is `Int`, all else is `Float`), as upstream's `util/json` does.

use bytes::Bytes;
use compact_str::CompactString;

/// One node of a tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// JSON null. Typed decoders drop it (absent), untyped JSON keeps it.
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer; every Go integer type of the API fits.
    Int(i64),
    /// A number written with a fraction or an exponent, or too large for `i64`.
    Float(f64),
    /// Text. Times, quantities and durations are kept in their JSON form.
    String(CompactString),
    /// A `[]byte` field, decoded from base64.
    Bytes(Bytes),
    /// Verbatim JSON text: FieldsV1, RawExtension, apiextensions JSON. Never looked into by the engine.
    Raw(Bytes),
    /// A list.
    List(Vec<Value>),
    /// A struct or a string map.
    Map(Map),
}

/// A struct or string map: entries sorted by key, keys unique.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    entries: Vec<(CompactString, Value)>,
}

static NULL: Value = Value::Null;
static EMPTY: Map = Map { entries: Vec::new() };

impl Value {
    /// Text from anything string-like.
    pub fn string(s: impl AsRef<str>) -> Value {
        Value::String(CompactString::new(s.as_ref()))
    }
    /// An empty map.
    pub fn map() -> Value {
        Value::Map(Map::default())
    }
    /// True for [`Value::Null`].
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }
    /// True for null, "", 0, false, an empty list or map: what Go's `omitempty` leaves out.
    pub fn is_empty(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(b) => !b,
            Value::Int(i) => *i == 0,
            Value::Float(f) => *f == 0.0,
            Value::String(s) => s.is_empty(),
            Value::Bytes(b) | Value::Raw(b) => b.is_empty(),
            Value::List(l) => l.is_empty(),
            Value::Map(m) => m.is_empty(),
        }
    }
    /// The text, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(s) = self { Some(s) } else { None }
    }
    /// The integer, if this is one.
    pub fn as_int(&self) -> Option<i64> {
        if let Value::Int(i) = self { Some(*i) } else { None }
    }
    /// The boolean, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(b) = self { Some(*b) } else { None }
    }
    /// The map, if this is one.
    pub fn as_map(&self) -> Option<&Map> {
        if let Value::Map(m) = self { Some(m) } else { None }
    }
    /// The map, if this is one.
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        if let Value::Map(m) = self { Some(m) } else { None }
    }
    /// The list, if this is one.
    pub fn as_list(&self) -> Option<&[Value]> {
        if let Value::List(l) = self { Some(l) } else { None }
    }
    /// The list, if this is one.
    pub fn as_list_mut(&mut self) -> Option<&mut Vec<Value>> {
        if let Value::List(l) = self { Some(l) } else { None }
    }
    /// The member `key` of a map; `Null` when this is no map or has no such member.
    pub fn get(&self, key: &str) -> &Value {
        self.as_map().and_then(|m| m.get(key)).unwrap_or(&NULL)
    }
    /// Follows member names; `Null` where the path ends early.
    pub fn at(&self, path: &[&str]) -> &Value {
        path.iter().fold(self, |v, key| v.get(key))
    }
    /// The text at `path`, "" when absent or no text: Go's zero value.
    pub fn str_at(&self, path: &[&str]) -> &str {
        self.at(path).as_str().unwrap_or("")
    }
    /// The integer at `path`, 0 when absent.
    pub fn int_at(&self, path: &[&str]) -> i64 {
        self.at(path).as_int().unwrap_or(0)
    }
    /// The boolean at `path`, false when absent.
    pub fn bool_at(&self, path: &[&str]) -> bool {
        self.at(path).as_bool().unwrap_or(false)
    }
    /// The items of the list at `path`, none when absent.
    pub fn list_at(&self, path: &[&str]) -> &[Value] {
        self.at(path).as_list().unwrap_or(&[])
    }
    /// The entries of the map at `path`, none when absent.
    pub fn map_at(&self, path: &[&str]) -> &Map {
        self.at(path).as_map().unwrap_or(&EMPTY)
    }
    /// Turns this into a map if it is none and returns it.
    pub fn make_map(&mut self) -> &mut Map {
        if !matches!(self, Value::Map(_)) {
            *self = Value::map();
        }
        match self {
            Value::Map(m) => m,
            _ => unreachable!("made a map above"),
        }
    }
    /// The place at `path`, making maps on the way.
    pub fn make(&mut self, path: &[&str]) -> &mut Value {
        path.iter().fold(self, |v, key| v.make_map().entry(key))
    }
    /// Writes `value` at `path`, making maps on the way.
    pub fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        *self.make(path) = value.into();
    }
    /// The place at `path` if every step exists.
    pub fn at_mut(&mut self, path: &[&str]) -> Option<&mut Value> {
        path.iter().try_fold(self, |v, key| v.as_map_mut()?.get_mut(key))
    }
    /// Takes the member at `path` out; `None` when it is not there.
    pub fn remove(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        self.at_mut(parents)?.as_map_mut()?.remove(last)
    }
}

impl Map {
    /// An empty map with room for `capacity` entries.
    pub fn with_capacity(capacity: usize) -> Map {
        Map { entries: Vec::with_capacity(capacity) }
    }
    /// From entries in any order; of equal keys the last one stays.
    pub fn from_entries(mut entries: Vec<(CompactString, Value)>) -> Map {
        if !entries.windows(2).all(|w| w[0].0 < w[1].0) {
            // Stable, and `dedup_by` keeps the first of a run: reversed, that is the last one written.
            entries.reverse();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            entries.dedup_by(|later, kept| later.0 == kept.0);
        }
        Map { entries }
    }
    fn find(&self, key: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|(k, _)| k.as_str().cmp(key))
    }
    /// The member `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.find(key).ok().map(|i| &self.entries[i].1)
    }
    /// The member `key`.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.find(key).ok().map(|i| &mut self.entries[i].1)
    }
    /// Whether `key` is there (its value may be null).
    pub fn contains_key(&self, key: &str) -> bool {
        self.find(key).is_ok()
    }
    /// The member `key`, made null if it is not there.
    pub fn entry(&mut self, key: &str) -> &mut Value {
        let i = match self.find(key) {
            Ok(i) => i,
            Err(i) => {
                self.entries.insert(i, (CompactString::new(key), Value::Null));
                i
            }
        };
        &mut self.entries[i].1
    }
    /// Writes a member; the former value if there was one.
    pub fn insert(&mut self, key: impl Into<CompactString>, value: impl Into<Value>) -> Option<Value> {
        let key = key.into();
        match self.find(&key) {
            Ok(i) => Some(std::mem::replace(&mut self.entries[i].1, value.into())),
            Err(i) => {
                self.entries.insert(i, (key, value.into()));
                None
            }
        }
    }
    /// Takes a member out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.find(key).ok().map(|i| self.entries.remove(i).1)
    }
    /// Number of members.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// Members in key order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &Value)> + ExactSizeIterator {
        self.entries.iter().map(|(k, v)| (k.as_str(), v))
    }
    /// Members in key order, values changeable.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Value)> {
        self.entries.iter_mut().map(|(k, v)| (k.as_str(), v))
    }
    /// Keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(k, _)| k.as_str())
    }
    /// Keeps the members for which `keep` says yes.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Value) -> bool) {
        self.entries.retain_mut(|(k, v)| keep(k, v));
    }
    /// The member's text, "" when absent.
    pub fn str(&self, key: &str) -> &str {
        self.get(key).and_then(Value::as_str).unwrap_or("")
    }
}

impl IntoIterator for Map {
    type Item = (CompactString, Value);
    type IntoIter = std::vec::IntoIter<(CompactString, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<K: Into<CompactString>, V: Into<Value>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Map {
        Map::from_entries(entries.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

impl From<Map> for Value {
    fn from(m: Map) -> Value {
        Value::Map(m)
    }
}
impl From<Vec<Value>> for Value {
    fn from(l: Vec<Value>) -> Value {
        Value::List(l)
    }
}
impl From<&str> for Value {
    fn from(s: &str) -> Value {
        Value::string(s)
    }
}
impl From<String> for Value {
    fn from(s: String) -> Value {
        Value::String(s.into())
    }
}
impl From<CompactString> for Value {
    fn from(s: CompactString) -> Value {
        Value::String(s)
    }
}
impl From<i64> for Value {
    fn from(i: i64) -> Value {
        Value::Int(i)
    }
}
impl From<i32> for Value {
    fn from(i: i32) -> Value {
        Value::Int(i.into())
    }
}
impl From<bool> for Value {
    fn from(b: bool) -> Value {
        Value::Bool(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_sorted_and_the_last_of_equal_keys_stays() {
        let m: Map = [("b", 1), ("a", 2), ("b", 3)].into_iter().collect();
        let seen: Vec<_> = m.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
        assert_eq!(seen, ["a=Int(2)", "b=Int(3)"]);
    }

    #[test]
    fn paths_make_what_they_need_and_read_as_zero_values() {
        let mut v = Value::Null;
        v.set(&["metadata", "name"], "x");
        v.set(&["spec", "replicas"], 3);
        assert_eq!(v.str_at(&["metadata", "name"]), "x");
        assert_eq!(v.int_at(&["spec", "replicas"]), 3);
        assert_eq!(v.str_at(&["spec", "replicas", "none"]), "");
        assert_eq!(v.remove(&["spec", "replicas"]), Some(Value::Int(3)));
        assert_eq!(v.remove(&["spec", "replicas"]), None);
    }
}
