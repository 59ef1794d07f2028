//! The result model on recorded rows of the suite, and the data in `conformance/` itself.

use std::collections::BTreeSet;
use std::path::Path;

use super::cast::Cast;
use super::causes::Causes;
use super::report::{self, Tail};
use super::results::{self, Results, Row, State};
use super::selection::{Selection, Shard};
use super::{Files, must_pass, table};

const RECORDED: &str = include_str!("testdata/rows.jsonl");

fn files() -> Files {
    Files(crate::root().join("conformance"))
}

fn recorded() -> Vec<Row> {
    RECORDED.lines().map(|line| report::row(line, "c0ffee").expect("a row")).collect()
}

fn names(rows: &[Row]) -> Vec<String> {
    let mut names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
    names.sort();
    names.dedup();
    names
}

fn row(name: &str, state: State, seconds: f64) -> Row {
    Row { name: name.into(), state, seconds, ..Row::default() }
}

#[test]
fn each_state_of_the_suite_becomes_one_of_three() {
    let line = |state: &str, message: &str| {
        let line =
            serde_json::json!({"name": "[sig-x] t", "state": state, "seconds": 1.26, "message": message});
        report::row(&line.to_string(), "c").map(|row| (row.state, row.seconds, row.failure))
    };
    for (state, message, want, failure) in [
        ("passed", "", State::Passed, ""),
        ("failed", "the first\nsecond", State::Failed, "the first"),
        (
            "failed",
            "error waiting for pod:\n    deadline exceeded\nthird",
            State::Failed,
            "error waiting for pod: deadline exceeded",
        ),
        (
            "failed",
            "Timed out after 60.001s.\nExpected Pod to be running\nx",
            State::Failed,
            "Timed out after 60.001s. Expected Pod to be running",
        ),
        (
            "timedout",
            "A spec timeout occurred",
            State::Failed,
            "longer than the cap: A spec timeout occurred",
        ),
        ("panicked", "Test Panicked", State::Failed, "Test Panicked"),
        ("skipped", "needs two nodes", State::NotRun, "needs two nodes"),
        ("interrupted", "Interrupted by User", State::NotRun, "Interrupted by User"),
        ("failed", "Expected\n    <int>: 1\nto equal\n", State::Failed, "Expected <int>: 1"),
    ] {
        assert_eq!(line(state, message).expect(state), (want, 1.3, failure.to_string()), "{state} {message}");
    }
    assert!(line("unheard of", "").is_err());
}

#[test]
fn recorded_rows_are_read() {
    let rows = recorded();
    for state in [State::Passed, State::Failed] {
        assert!(rows.iter().any(|row| row.state == state), "{state:?} among the recorded rows");
    }
    for row in rows {
        assert!(row.group().starts_with("sig-"), "{}", row.name);
        assert_eq!(row.failure.is_empty(), row.state == State::Passed, "{row:?}");
    }
}

#[test]
fn a_newer_row_replaces_the_older_and_silence_replaces_nothing() {
    let tests = ["a".to_string(), "b".into()];
    let mut results = Results::none(&tests);
    let state = |results: &Results| results.rows().map(|row| row.state).collect::<Vec<_>>();
    results.put(row("a", State::Failed, 1.0));
    results.put(row("gone", State::Passed, 1.0));
    assert_eq!(state(&results), [State::Failed, State::NotRun], "a test that is not of the suite has no row");
    results.put(row("a", State::NotRun, 0.0));
    assert_eq!(state(&results), [State::Failed, State::NotRun]);
    results.put(row("a", State::Passed, 1.0));
    results.put(Row { failure: "Interrupted".into(), ..row("b", State::NotRun, 0.0) });
    assert_eq!(state(&results), [State::Passed, State::NotRun]);
}

#[test]
fn a_file_holds_one_row_a_line_and_reads_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("results/x.json");
    let rows = recorded();
    let tests = names(&rows);
    assert_eq!(Results::read(&path, &tests).expect("no file"), Results::none(&tests));
    let mut results = Results::none(&tests);
    rows.into_iter().for_each(|row| results.put(row));
    results.write(&path).expect("writes");
    assert_eq!(Results::read(&path, &tests).expect("reads"), results);
    let text = std::fs::read_to_string(&path).expect("reads");
    assert_eq!(text.lines().count(), tests.len() + 2);
}

#[test]
fn lines_are_told_when_they_are_whole() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rows");
    let mut tail = Tail::new(path.clone());
    assert!(tail.lines().expect("no file").is_empty());
    let mut file = std::fs::File::create(path).expect("creates");
    for (written, want) in [("one\ntw", vec!["one"]), ("o", vec![]), ("\nthree\n", vec!["two", "three"])] {
        file.write_all(written.as_bytes()).expect("writes");
        assert_eq!(tail.lines().expect("reads"), want);
    }
}

#[test]
fn shards_are_parts_and_resuming_leaves_out_what_passed() {
    let tests: Vec<String> =
        ["[sig-a] 1", "[sig-a] 2", "[sig-b] 3", "[sig-b] 4 [Serial]"].map(String::from).into();
    let mut results = Results::none(&tests);
    results.put(row("[sig-a] 1", State::Passed, 1.0));
    results.put(row("[sig-b] 3", State::Failed, 1.0));
    let shard = |text: &str| Some(text.parse::<Shard>().expect(text));
    let focus = |text: &str| Some(regex::Regex::new(text).expect(text));
    for (selection, want) in [
        (Selection::default(), "1234"),
        (Selection { resume: true, ..Selection::default() }, "234"),
        (Selection { group: Some("sig-b".into()), ..Selection::default() }, "34"),
        (Selection { focus: focus("[13]"), ..Selection::default() }, "13"),
        (Selection { skip: focus("[13]"), ..Selection::default() }, "24"),
        (Selection { shard: shard("1/2"), ..Selection::default() }, "13"),
        (Selection { shard: shard("2/2"), resume: true, ..Selection::default() }, "24"),
        (Selection { shard: shard("1/2"), resume: true, ..Selection::default() }, "3"),
    ] {
        let chosen: String = selection.of(&tests, &results).iter().map(|name| &name[8..9]).collect();
        assert_eq!(chosen, want);
    }
    for wrong in ["0/2", "3/2", "1", "a/b", "1/0"] {
        assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
    }
}

#[test]
fn a_cast_names_its_results_and_what_up_leaves_out() {
    let cast = |upstream, swaps: &[&str]| {
        Cast::new(upstream, &swaps.iter().map(|s| (*s).to_string()).collect::<Vec<_>>())
    };
    for (upstream, swaps, suite, without) in [
        (false, vec![], "conformance", ""),
        (true, vec![], "upstream", "apiserver controller-manager scheduler kubelet"),
        (false, vec!["proxy=upstream", "dns=upstream"], "upstream-proxy-dns", ""),
        (false, vec!["kubelet=upstream"], "upstream-kubelet", "kubelet"),
        (
            true,
            vec!["kubelet=ours", "dns=none"],
            "upstream-apiserver-controller-manager-scheduler-proxy",
            "apiserver controller-manager scheduler",
        ),
    ] {
        let cast = cast(upstream, &swaps).expect("a cast");
        assert_eq!((cast.suite().as_str(), cast.without().join(" ").as_str()), (suite, without), "{swaps:?}");
    }
    for wrong in ["kubelet", "kubelet=theirs", "proxy=ours", "kubelet=none", "etcd=upstream"] {
        assert!(cast(false, &[wrong]).is_err(), "{wrong}");
    }
}

#[test]
fn the_first_cause_that_matches_counts() {
    let causes = Causes::parse(
        "- test: DNS\n  failure: lookup\n  cause: both\n- failure: lookup\n  cause: failure\n- test: DNS\n  cause: test\n",
        "conformance",
    )
    .expect("causes");
    let of = |name: &str, failure: &str| {
        causes
            .of(&Row { failure: failure.into(), ..row(name, State::Failed, 1.0) })
            .unwrap_or("none")
            .to_string()
    };
    for (name, failure, want) in
        [("DNS", "lookup x", "both"), ("y", "lookup x", "failure"), ("DNS", "z", "test"), ("y", "z", "none")]
    {
        assert_eq!(of(name, failure), want);
    }
    let lacking = "- test: DNS\n  cause: x\n  hollow: true\n  lacks: dns\n";
    let hollow = Causes::parse(lacking, "upstream-kubelet").expect("causes");
    for (name, state, want) in [
        ("DNS", State::Passed, State::Failed),
        ("DNS", State::NotRun, State::NotRun),
        ("y", State::Passed, State::Passed),
    ] {
        assert_eq!(hollow.weighed(row(name, state, 1.0)).state, want, "{name} {state:?}");
    }
    let failed = hollow.weighed(row("DNS", State::Passed, 1.0));
    for suite in ["upstream", "upstream-proxy-dns", "upstream-dns-kubelet"] {
        let full = Causes::parse(lacking, suite).expect("causes");
        assert_eq!(full.weighed(failed.clone()), row("DNS", State::Passed, 1.0), "{suite}");
        assert_eq!(full.of(&failed), None, "{suite}");
    }
    for wrong in
        ["- cause: everything\n", "- failure: '('\n  cause: x\n", "- test: y\n  cause: x\n  lacks: etcd\n"]
    {
        assert!(Causes::parse(wrong, "conformance").is_err(), "{wrong}");
    }
}

#[test]
fn the_table_counts_groups_and_causes_and_stands_between_its_markers() {
    let tests: Vec<String> = ["[sig-a] 1", "[sig-a] 2", "[sig-b] 3", "[sig-b] 4"].map(String::from).into();
    let mut results = Results::none(&tests);
    results.put(row("[sig-a] 1", State::Passed, 1.0));
    results.put(Row { failure: "no | x".into(), ..row("[sig-a] 2", State::Failed, 1.0) });
    results.put(Row { failure: "else".into(), ..row("[sig-b] 3", State::Failed, 1.0) });
    results.explain(&Causes::parse("- failure: 'no '\n  cause: a | b\n", "conformance").expect("causes"));
    let table = table::markdown(&results).expect("a table");
    for line in [
        "| sig-a | 2 | 1 | 1 | 0 |",
        "| sig-b | 2 | 0 | 1 | 1 |",
        "| **all** | 4 | 1 | 2 | 1 |",
        "| a \\| b | 1 | [sig-a] 2 |",
        "| not yet explained | 1 | [sig-b] 3 |",
    ] {
        assert!(table.lines().any(|l| l == line), "{line} in\n{table}");
    }
    let document = "head\n<!-- results of x -->\nold\n<!-- end of x -->\ntail\n";
    assert_eq!(table::suites(document), ["x"]);
    let new = table::replaced(document, "x", "new").expect("markers");
    assert_eq!(new, "head\n<!-- results of x -->\n\nnew\n<!-- end of x -->\ntail\n");
    assert!(table::replaced(document, "y", "new").is_err());
}

#[test]
fn what_passed_once_must_go_on_passing() {
    let list = BTreeSet::from(["a".to_string(), "b".into(), "c".into()]);
    let ran = [
        row("a", State::Passed, 1.0),
        row("b", State::Failed, 1.0),
        row("c", State::NotRun, 1.0),
        row("d", State::Passed, 1.0),
        row("e", State::Failed, 1.0),
    ];
    assert_eq!(must_pass::judge(&list, ran.iter()), (vec!["d"], vec!["b"]));
}

#[test]
fn quick_takes_the_fastest_that_fit_and_none_that_must_run_alone() {
    let seconds = [("a", 29.0), ("b", 1.0), ("c [Serial]", 1.0), ("d", 31.0), ("e", 2.0)];
    let tests: Vec<String> = seconds.iter().map(|(name, _)| (*name).to_string()).collect();
    let mut results = Results::none(&tests);
    seconds.iter().for_each(|(name, seconds)| results.put(row(name, State::Passed, *seconds)));
    let mut list: BTreeSet<String> = tests.iter().cloned().collect();
    assert_eq!(must_pass::quick(&list, &results, 1), ["b", "e", "a"]);
    // 29 s each: ten of them fit into five minutes.
    let many: Vec<String> = (0..20).map(|n| format!("x{n:02}")).collect();
    let mut results = Results::none(&many);
    many.iter().for_each(|name| results.put(row(name, State::Passed, 29.0)));
    list.extend(many);
    assert_eq!(must_pass::quick(&list, &results, 1).len(), 10);
    assert_eq!(must_pass::quick(&list, &results, 2).len(), 20);
}

fn sorted_and_unique(path: &Path) -> Vec<String> {
    let names = results::names(path).expect("the file");
    assert!(names.is_sorted_by(|a, b| a < b), "{} is sorted, each line once", path.display());
    names
}

/// The committed data fits together: whoever edits one file by hand learns it here.
#[test]
fn the_data_is_whole() {
    let files = files();
    let tests = sorted_and_unique(&files.tests());
    assert_eq!(tests.len(), 446, "upstream v1.36 has this many tests with [Conformance]");
    let known: BTreeSet<&String> = tests.iter().collect();
    for list in [files.must_pass(), files.smoke()] {
        for name in sorted_and_unique(&list) {
            assert!(known.contains(&name), "{}: unknown test {name}", list.display());
        }
    }
    let document = std::fs::read_to_string(files.readme()).expect("the README");
    for suite in table::suites(&document) {
        let causes = Causes::read(&files.causes(), suite).expect(suite);
        let mut results = Results::read(&files.results(suite), &tests).expect(suite);
        let table = table::markdown(&results).expect(suite);
        assert!(
            document.contains(&table),
            "conformance/README.md shows the results of {suite}: run --tables"
        );
        let text = results.text().expect(suite);
        results.explain(&causes);
        assert_eq!(
            results.text().expect(suite),
            text,
            "causes of {suite} are those of causes.yaml: run --tables"
        );
    }
}
