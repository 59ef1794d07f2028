//! One object at one revision, as all its readers share it, and the encoded bodies made of it.
//!
//! Invariants:
//! * an entry never changes: a new revision is a new entry;
//! * a body is made at most once per entry and form while it is kept; readers share the bytes. What is as fast to make as to
//!   copy is not kept: it would take the place of bodies that are worth it;
//! * all bodies of all caches together stay under [`BodyBudget`]'s limit (plus the one just made); entries that die take
//!   their bodies along.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use compact_str::CompactString;
use parking_lot::Mutex;

use crate::cow_map::Ordered;

/// Bytes of encoded bodies kept unless the embedder says otherwise: 5,000 pods in JSON and as rows of a Table.
pub const BODY_BYTES_MAX: usize = 48 << 20;

/// Why stored bytes could not be read as an object. Theirs is the text; for the cache it means: corrupt.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// A served version and media type, as an index into a list that the registry keeps. The cache only compares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form(pub u8);

/// What selections ask of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `metadata.namespace`, empty for cluster-scoped objects.
    pub namespace: CompactString,
    /// `metadata.name`.
    pub name: CompactString,
    /// `metadata.labels`, in the order in which the codec likes to look them up.
    pub labels: Box<[(CompactString, CompactString)]>,
    /// The values of the kind's selectable fields beyond name and namespace, in the order in which the registry lists
    /// them for the kind; secondary indexes name a field by its position here.
    pub fields: Box<[CompactString]>,
}

/// What the cache needs to know of the objects of one resource, said by the registry. Pure and cheap.
pub trait ObjectCodec: Send + Sync + 'static {
    /// Labels, namespace, name and selectable fields; called once per revision.
    fn attributes(&self, key: &[u8], stored: &Bytes) -> Result<Attributes, CodecError>;

    /// Whether a body of this form is made about as fast as it is copied. Such bodies are not kept: each reader has its own.
    fn is_cheap(&self, _form: Form) -> bool {
        false
    }

    /// The body for readers: the message of the form's version and media type with the revision spliced in, without type
    /// meta. Called at most once per revision and form as long as the body is kept.
    fn body(&self, stored: &Bytes, revision: u64, form: Form) -> Result<Bytes, CodecError>;
}

/// One object at one revision.
pub struct Entry {
    /// Its key in the store.
    pub key: Bytes,
    /// Its `resourceVersion`. Of the last sight of an object that was deleted or left the selection: the revision at which
    /// that happened.
    pub revision: u64,
    /// The revision at which the key was made.
    pub create_revision: u64,
    /// The bytes as the store has them.
    pub stored: Bytes,
    /// What selections ask.
    pub attributes: Arc<Attributes>,
    bodies: Mutex<Vec<Body>>,
    budget: Arc<BodyBudget>,
}

struct Body {
    form: Form,
    bytes: Bytes,
    /// Read since the budget last looked at it.
    used: bool,
}

impl Entry {
    pub(crate) fn new(
        key: Bytes,
        revision: u64,
        create_revision: u64,
        stored: Bytes,
        attributes: Arc<Attributes>,
        budget: Arc<BodyBudget>,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            revision,
            create_revision,
            stored,
            attributes,
            bodies: Mutex::default(),
            budget,
        })
    }

    /// The same object as it is shown at a later revision, when it has gone.
    pub(crate) fn gone_at(&self, revision: u64) -> Arc<Self> {
        Self::new(
            self.key.clone(),
            revision,
            self.create_revision,
            self.stored.clone(),
            self.attributes.clone(),
            self.budget.clone(),
        )
    }

    /// The object encoded for readers; made now if it is not kept.
    pub fn body(self: &Arc<Self>, form: Form, codec: &dyn ObjectCodec) -> Result<Bytes, CodecError> {
        if codec.is_cheap(form) {
            return codec.body(&self.stored, self.revision, form);
        }
        // Held while the body is made, so that those who want it too wait instead of making it again.
        let mut bodies = self.bodies.lock();
        if let Some(body) = bodies.iter_mut().find(|body| body.form == form) {
            body.used = true;
            return Ok(body.bytes.clone());
        }
        let bytes = codec.body(&self.stored, self.revision, form)?;
        bodies.push(Body { form, bytes: bytes.clone(), used: false });
        drop(bodies);
        self.budget.kept(self, bytes.len());
        Ok(bytes)
    }

    /// Lets go of bodies that were not read since the last call. Returns the bytes freed and whether others stay.
    fn age(&self) -> (usize, bool) {
        // An entry that makes a body right now is in use; never wait for it.
        let Some(mut bodies) = self.bodies.try_lock() else { return (0, true) };
        let mut freed = 0;
        bodies.retain_mut(|body| {
            let keep = std::mem::take(&mut body.used);
            if !keep {
                freed += body.bytes.len();
            }
            keep
        });
        (freed, !bodies.is_empty())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let bytes: usize = self.bodies.get_mut().iter().map(|body| body.bytes.len()).sum();
        if bytes > 0 {
            self.budget.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Ordered for Arc<Entry> {
    fn order(&self) -> &[u8] {
        &self.key
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", String::from_utf8_lossy(&self.key), self.revision)
    }
}

/// The bound on all encoded bodies, shared by the caches of all resources.
pub struct BodyBudget {
    bytes: AtomicUsize,
    bytes_max: usize,
    /// Entries with bodies, oldest first; second chance for those that were read again.
    queue: Mutex<Queue>,
    /// Bodies that had to go so far; every [`OLDEST_EVERY`]th time it is the oldest.
    gone: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Weak<Entry>>,
    /// Length at which the dead are swept out.
    sweep_at: usize,
}

/// Who reads everything in turn (lists, over and over) would find nothing of what does not fit whole if always the oldest
/// had to go: just that is read next. So mostly one goes that is new, but no longer at hand of those for whom it was made...
const RECENT: usize = 256;
/// ... and now and then the oldest, so that what nobody wants any more goes in the end.
const OLDEST_EVERY: usize = 4;

/// Dead entries are not worth a sweep before there are so many.
const SWEEP_MIN: usize = 1024;

impl BodyBudget {
    /// A budget of so many bytes.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicUsize::new(0),
            bytes_max,
            queue: Mutex::default(),
            gone: AtomicUsize::new(0),
        })
    }

    /// Bytes kept now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The entry that is looked at next.
    fn candidate(&self, entries: &mut VecDeque<Weak<Entry>>) -> Option<Weak<Entry>> {
        let turn = self.gone.fetch_add(1, Ordering::Relaxed);
        match entries.len().checked_sub(RECENT) {
            // `remove` moves the shorter side: a few kilobytes at most.
            Some(at) if !turn.is_multiple_of(OLDEST_EVERY) => entries.remove(at.min(entries.len() - 1)),
            _ => entries.pop_front(),
        }
    }

    fn kept(&self, entry: &Arc<Entry>, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut queue = self.queue.lock();
        queue.entries.push_back(Arc::downgrade(entry));
        // Each entry is looked at twice at most: once spared, once emptied.
        let mut looks = queue.entries.len() * 2;
        // Upgraded entries may be the last of their kind: they are dropped after the lock.
        let mut seen = Vec::new();
        while self.bytes() > self.bytes_max && looks > 0 {
            looks -= 1;
            let Some(candidate) = self.candidate(&mut queue.entries) else { break };
            let Some(entry) = candidate.upgrade() else { continue };
            let (freed, others) = entry.age();
            self.bytes.fetch_sub(freed, Ordering::Relaxed);
            if others {
                queue.entries.push_back(candidate);
            }
            seen.push(entry);
        }
        if queue.entries.len() > queue.sweep_at.max(SWEEP_MIN) {
            queue.entries.retain(|entry| entry.strong_count() > 0);
            queue.sweep_at = queue.entries.len() * 2;
        }
        drop(queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bodies of 100 bytes that tell who made them; counts how often.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl ObjectCodec for Counting {
        fn attributes(&self, _: &[u8], _: &Bytes) -> Result<Attributes, CodecError> {
            Ok(Attributes::default())
        }
        fn body(&self, _: &Bytes, revision: u64, form: Form) -> Result<Bytes, CodecError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(format!("{revision:>98}{:>2}", form.0).into())
        }
    }

    fn entry(revision: u64, budget: &Arc<BodyBudget>) -> Arc<Entry> {
        Entry::new("k".into(), revision, 1, "v".into(), Arc::default(), budget.clone())
    }

    #[test]
    fn a_body_is_made_once_per_form_and_shared() {
        let (codec, budget) = (Counting::default(), BodyBudget::new(1000));
        let entry = entry(5, &budget);
        let bodies: Vec<_> = (0..10).map(|i| entry.body(Form(i % 2), &codec).expect("made")).collect();
        assert_eq!(codec.0.load(Ordering::Relaxed), 2);
        assert_eq!(bodies[0].as_ptr(), bodies[8].as_ptr());
        assert_ne!(bodies[0], bodies[1]);
        assert_eq!(budget.bytes(), 200);
        drop(entry);
        assert_eq!(budget.bytes(), 0, "the dead take their bodies along");
    }

    #[test]
    fn bodies_stay_under_the_budget_and_those_in_use_are_spared() {
        let (codec, budget) = (Counting::default(), BodyBudget::new(1000));
        let entries: Vec<_> = (0..30).map(|revision| entry(revision, &budget)).collect();
        let hot = entries[0].body(Form(0), &codec).expect("made");
        for entry in &entries {
            entry.body(Form(0), &codec).expect("made");
            assert_eq!(entries[0].body(Form(0), &codec).expect("kept").as_ptr(), hot.as_ptr());
            assert!(budget.bytes() <= 1000);
        }
        assert_eq!(codec.0.load(Ordering::Relaxed), 30);
        let queued = budget.queue.lock().entries.len();
        assert!(queued <= 11, "{queued}");
    }

    /// A list of more than fits, again and again: most of what fits is found again each time.
    #[test]
    fn lists_over_the_budget_find_most_of_what_fits() {
        const LISTED: u64 = 4000;
        let (codec, budget) = (Counting::default(), BodyBudget::new(100 * 3000));
        let entries: Vec<_> = (0..LISTED).map(|revision| entry(revision, &budget)).collect();
        let list = || {
            let before = codec.0.load(Ordering::Relaxed);
            entries.iter().for_each(|entry| drop(entry.body(Form(0), &codec).expect("made")));
            assert!(budget.bytes() <= 100 * 3000);
            codec.0.load(Ordering::Relaxed) - before
        };
        list();
        for round in 1..5 {
            let made = list();
            assert!(made < 2000, "round {round}: {made} of {LISTED} had to be made, 1000 did not fit");
        }
        // What nobody reads any more goes by and by.
        let others: Vec<_> = (0..3000).map(|revision| entry(revision, &budget)).collect();
        for _ in 0..12 {
            others.iter().for_each(|entry| drop(entry.body(Form(0), &codec).expect("made")));
        }
        let kept = |entries: &[Arc<Entry>]| entries.iter().filter(|e| !e.bodies.lock().is_empty()).count();
        assert!(kept(&others) > 2 * kept(&entries), "{} against {}", kept(&others), kept(&entries));
    }

    #[test]
    fn the_queue_does_not_grow_with_the_dead() {
        let (codec, budget) = (Counting::default(), BodyBudget::new(usize::MAX));
        for revision in 0..10 * SWEEP_MIN as u64 {
            entry(revision, &budget).body(Form(0), &codec).expect("made");
        }
        assert!(budget.queue.lock().entries.len() <= SWEEP_MIN + 1);
    }
}
