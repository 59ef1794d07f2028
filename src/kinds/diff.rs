//! The difference of two texts as upstream prints it in messages: a unified diff of lines, three lines of context, no
//! file names.
//!
//! upstream: apimachinery/pkg/util/diff Diff, which uses the matching of Python's difflib (longest matching block first,
//! lines that are very frequent in long texts set aside). Another algorithm gives other, equally right, differences; this
//! is the one that clients see.

use std::collections::HashMap;
use std::fmt::Write as _;

const CONTEXT: usize = 3;
/// Texts of so many lines and more have their most frequent lines set aside.
const POPULAR_FROM: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Equal,
    Replace,
    Delete,
    Insert,
}

/// A stretch `a[i1..i2]` that becomes `b[j1..j2]`.
#[derive(Clone, Copy)]
struct Op {
    tag: Tag,
    i1: usize,
    i2: usize,
    j1: usize,
    j2: usize,
}

/// The unified diff that turns `a` into `b`; "" when they are equal.
pub fn unified(a: &str, b: &str) -> String {
    let (a, b) = (lines(a), lines(b));
    let mut out = String::new();
    for group in groups(ops(&a, &b)) {
        let (first, last) = (group[0], group[group.len() - 1]);
        let header = format!("@@ -{} +{} @@", range(first.i1, last.i2), range(first.j1, last.j2));
        let _infallible = writeln!(out, "{header}");
        for op in group {
            let mut put = |mark: char, lines: &[String]| {
                lines.iter().for_each(|line| {
                    out.push(mark);
                    out.push_str(line);
                })
            };
            if op.tag == Tag::Equal {
                put(' ', &a[op.i1..op.i2]);
                continue;
            }
            put('-', &a[op.i1..op.i2]);
            put('+', &b[op.j1..op.j2]);
        }
    }
    out
}

/// Lines with their ends; the last one gets one. upstream: difflib SplitLines
fn lines(text: &str) -> Vec<String> {
    text.split('\n').map(|line| format!("{line}\n")).collect()
}

fn range(start: usize, stop: usize) -> String {
    match stop - start {
        1 => format!("{}", start + 1),
        0 => format!("{start},0"),
        length => format!("{},{length}", start + 1),
    }
}

/// Where each line of `b` stands, without the popular ones.
fn index(b: &[String]) -> HashMap<&str, Vec<usize>> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (j, line) in b.iter().enumerate() {
        places.entry(line).or_default().push(j);
    }
    if b.len() >= POPULAR_FROM {
        let limit = b.len() / 100 + 1;
        places.retain(|_, at| at.len() <= limit);
    }
    places
}

/// The longest block that `a[alo..ahi]` and `b[blo..bhi]` share, the earliest of equals: (i, j, length).
fn longest(
    a: &[String],
    b: &[String],
    places: &HashMap<&str, Vec<usize>>,
    (alo, ahi): (usize, usize),
    (blo, bhi): (usize, usize),
) -> (usize, usize, usize) {
    let (mut i, mut j, mut size) = (alo, blo, 0);
    let mut ending: HashMap<usize, usize> = HashMap::new();
    for (at, line) in a.iter().enumerate().take(ahi).skip(alo) {
        let mut next = HashMap::new();
        for &other in places.get(line.as_str()).map_or(&[][..], Vec::as_slice) {
            if other < blo {
                continue;
            }
            if other >= bhi {
                break;
            }
            let length = other.checked_sub(1).and_then(|p| ending.get(&p)).copied().unwrap_or(0) + 1;
            next.insert(other, length);
            if length > size {
                (i, j, size) = (at + 1 - length, other + 1 - length, length);
            }
        }
        ending = next;
    }
    // Grow over the lines that were set aside.
    while i > alo && j > blo && a[i - 1] == b[j - 1] {
        (i, j, size) = (i - 1, j - 1, size + 1);
    }
    while i + size < ahi && j + size < bhi && a[i + size] == b[j + size] {
        size += 1;
    }
    (i, j, size)
}

fn blocks(a: &[String], b: &[String]) -> Vec<(usize, usize, usize)> {
    let places = index(b);
    let mut found = Vec::new();
    let mut queue = vec![((0, a.len()), (0, b.len()))];
    while let Some((x, y)) = queue.pop() {
        let (i, j, size) = longest(a, b, &places, x, y);
        if size == 0 {
            continue;
        }
        found.push((i, j, size));
        if x.0 < i && y.0 < j {
            queue.push(((x.0, i), (y.0, j)));
        }
        if i + size < x.1 && j + size < y.1 {
            queue.push(((i + size, x.1), (j + size, y.1)));
        }
    }
    found.sort_unstable();
    let mut merged: Vec<(usize, usize, usize)> = Vec::new();
    for (i, j, size) in found {
        match merged.last_mut() {
            Some(last) if last.0 + last.2 == i && last.1 + last.2 == j => last.2 += size,
            _ => merged.push((i, j, size)),
        }
    }
    merged.push((a.len(), b.len(), 0));
    merged
}

fn ops(a: &[String], b: &[String]) -> Vec<Op> {
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    for (ai, bj, size) in blocks(a, b) {
        let tag = match (i < ai, j < bj) {
            (true, true) => Some(Tag::Replace),
            (true, false) => Some(Tag::Delete),
            (false, true) => Some(Tag::Insert),
            (false, false) => None,
        };
        if let Some(tag) = tag {
            out.push(Op { tag, i1: i, i2: ai, j1: j, j2: bj });
        }
        (i, j) = (ai + size, bj + size);
        if size > 0 {
            out.push(Op { tag: Tag::Equal, i1: ai, i2: i, j1: bj, j2: j });
        }
    }
    out
}

/// Cuts long equal stretches, so that each change keeps its context. upstream: difflib GetGroupedOpCodes
fn groups(mut ops: Vec<Op>) -> Vec<Vec<Op>> {
    if let Some(first) = ops.first_mut().filter(|op| op.tag == Tag::Equal) {
        first.i1 = first.i1.max(first.i2.saturating_sub(CONTEXT));
        first.j1 = first.j1.max(first.j2.saturating_sub(CONTEXT));
    }
    if let Some(last) = ops.last_mut().filter(|op| op.tag == Tag::Equal) {
        last.i2 = last.i2.min(last.i1 + CONTEXT);
        last.j2 = last.j2.min(last.j1 + CONTEXT);
    }
    let (mut out, mut group) = (Vec::new(), Vec::new());
    for mut op in ops {
        if op.tag == Tag::Equal && op.i2 - op.i1 > 2 * CONTEXT {
            group.push(Op { i2: op.i2.min(op.i1 + CONTEXT), j2: op.j2.min(op.j1 + CONTEXT), ..op });
            out.push(std::mem::take(&mut group));
            op.i1 = op.i1.max(op.i2.saturating_sub(CONTEXT));
            op.j1 = op.j1.max(op.j2.saturating_sub(CONTEXT));
        }
        group.push(op);
    }
    if !(group.is_empty() || group.len() == 1 && group[0].tag == Tag::Equal) {
        out.push(group);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::unified;

    #[test]
    fn a_change_keeps_three_lines_around_it() {
        let a = "1\n2\n3\n4\n5\n6\n7\n8\n9";
        let b = a.replace('5', "five");
        let want = "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n";
        assert_eq!(unified(a, &b), want);
        assert_eq!(unified(a, a), "");
    }
}
