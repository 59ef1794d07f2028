//! The registry as a client sees it: requests and what they must answer, as data (`*.yaml`), over the embedded store in memory.
//!
//! A file is a list of steps that run in order against one fresh server. A step has
//! * `do`: verb and path, `create /api/v1/namespaces/default/pods`, `patch:merge ...`, with a query as on the wire;
//! * `body`: what is sent;
//! * `code`, and `want`: what the answer must hold at least (objects by subset, lists by position; `<any>`: something), or
//!   `refused`: the whole message of the refusal;
//! * `warnings`: all warnings, in order;
//! * `absent`: dotted paths that the answer must not have;
//! * `as`: the user, `admin` if not said (see [`Allow`]).

mod golden;
mod harness;
mod measure;

use harness::{Server, run};

macro_rules! yaml {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                run(stringify!($name), include_str!(concat!(stringify!($name), ".yaml"))).await;
            }
        )*
    };
}

yaml!(apply, crud, update, patch, delete, lists, reviews, pods, scale, services, namespaces, rbac, events);

/// A watch sees what a list at its start did not.
#[tokio::test]
async fn a_watch_goes_on_where_a_list_ended() {
    let server = Server::new().await;
    let create = |name: &str| format!(r#"{{"metadata":{{"name":"{name}","labels":{{"app":"{name}"}}}}}}"#);
    let path = "/api/v1/namespaces/default/configmaps";
    server.send("create", path, &create("a"), "admin").await.expect("created");
    let revision = server.list_revision(path).await;
    let mut watch = server.watch(path, &format!("resourceVersion={revision}")).await;
    server.send("create", path, &create("b"), "admin").await.expect("created");
    server
        .send("patch:merge", &format!("{path}/b"), r#"{"data":{"k":"v"}}"#, "admin")
        .await
        .expect("patched");
    server.send("delete", &format!("{path}/a"), "", "admin").await.expect("deleted");
    assert_eq!(watch.events(3).await, ["ADDED b", "MODIFIED b", "DELETED a"]);

    let mut selected = server.watch(path, "labelSelector=app%3Db&allowWatchBookmarks=true").await;
    assert_eq!(selected.events(2).await, ["ADDED b", "BOOKMARK end"]);
    server
        .send("patch:merge", &format!("{path}/b"), r#"{"metadata":{"labels":null}}"#, "admin")
        .await
        .expect("patched");
    assert_eq!(
        selected.events(1).await,
        ["DELETED b"],
        "an object that leaves the selector is deleted to the watcher"
    );

    server.registry.shutdown();
    assert!(watch.is_over().await, "a shutdown ends watches");
}

/// History that is no longer kept is refused within the watch, so that clients list anew.
#[tokio::test]
async fn a_watch_from_forgotten_history_says_so() {
    let server = Server::new().await;
    let path = "/api/v1/namespaces/default/configmaps";
    for name in ["a", "b"] {
        let body = format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
        server.send("create", path, &body, "admin").await.expect("created");
    }
    // The cache begins with its first list: nothing before that is kept.
    assert_eq!(server.list_revision(path).await, 3);
    let mut watch = server.watch(path, "resourceVersion=1").await;
    assert_eq!(watch.events(1).await, ["ERROR too old resource version: 1 (3)"]);
    assert!(watch.is_over().await);
}

/// Pages of one list are of one state, whatever is written between them.
#[tokio::test]
async fn pages_show_one_state() {
    let server = Server::new().await;
    let path = "/api/v1/namespaces/default/configmaps";
    for name in ["a", "b", "c", "d", "e"] {
        let body = format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
        server.send("create", path, &body, "admin").await.expect("created");
    }
    let first = server.list(path, "limit=2").await.expect("listed");
    assert_eq!((harness::names(&first), first.remaining), (vec!["a".to_string(), "b".into()], Some(3)));
    server.send("delete", &format!("{path}/c"), "", "admin").await.expect("deleted");
    let query = format!("limit=2&continue={}", first.continue_token);
    let second = server.list(path, &query).await.expect("listed");
    assert_eq!(harness::names(&second), ["c", "d"]);
    assert_eq!(second.revision, first.revision);
    let query = format!("limit=2&continue={}", second.continue_token);
    let third = server.list(path, &query).await.expect("listed");
    assert_eq!((harness::names(&third), third.continue_token.as_str()), (vec!["e".to_string()], ""));
}

/// Two clients that update from the same state: one of them is told; patches are not.
#[tokio::test]
async fn concurrent_patches_all_arrive() {
    let server = std::sync::Arc::new(Server::new().await);
    let path = "/api/v1/namespaces/default/configmaps";
    server.send("create", path, r#"{"metadata":{"name":"a"}}"#, "admin").await.expect("created");
    let patches = (0..16).map(|i| {
        let server = server.clone();
        tokio::spawn(async move {
            let body = format!(r#"{{"data":{{"k{i}":"v"}}}}"#);
            server.send("patch:merge", &format!("{path}/a"), &body, "admin").await.map(drop)
        })
    });
    for patch in patches.collect::<Vec<_>>() {
        patch.await.expect("no panic").expect("patched");
    }
    let answer = server.send("get", &format!("{path}/a"), "", "admin").await.expect("got");
    assert_eq!(answer.tree.map_at(&["data"]).len(), 16);
}
/// Admission is asked before anything behind an object is connected to, and sees what is asked for.
#[tokio::test]
async fn connecting_is_admitted() {
    let server = Server::new().await;
    let served = server.registry.lookup("", "v1", "pods").expect("pods are served");
    for (name, want) in [
        ("open", None),
        (
            "closed",
            Some("pods \"closed\" is forbidden: no PodExecOptions of {\"command\":[\"sh\"]} by pods/exec"),
        ),
    ] {
        let target = crate::Target {
            served: served.clone(),
            namespace: "default".into(),
            name: name.into(),
            subresource: "exec".into(),
        };
        let mut options = copepod_meta::Value::map();
        options.set(&["command"], vec![copepod_meta::Value::string("sh")]);
        let admitted = server
            .registry
            .admit_connect(&crate::Caller::default(), &target, "PodExecOptions", &mut options)
            .await;
        assert_eq!(admitted.err().map(|status| status.message).as_deref(), want, "{name}");
    }
}
