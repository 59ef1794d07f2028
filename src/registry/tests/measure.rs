//! What requests cost in CPU, without HTTP: 5,000 pods of 4.9 KB JSON with managedFields, as the design's targets are told.
//! Run on purpose, optimised and alone: `cargo test --release -p copepod-registry measure -- --ignored --nocapture`.

use std::future::Future;
use std::time::Duration;

use copepod_codec as codec;
use copepod_schema::Media;

use super::harness::{Server, big_pod};
use crate::api::{Form, Include, Listing, View};

const PODS: usize = 5000;
const PATH: &str = "/api/v1/namespaces/default/pods";
/// What the edge copies small bodies into.
const CHUNK_BYTES: usize = 64 << 10;

/// CPU time of all threads of this process.
fn cpu() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").expect("proc");
    let nanos = threads.filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

async fn measure<F: Future>(what: &str, target: &str, rounds: u32, mut work: impl FnMut(u32) -> F) {
    let before = cpu();
    for round in 0..rounds {
        work(round).await;
    }
    let each = (cpu() - before).as_secs_f64() * 1e6 / f64::from(rounds);
    println!("{what:<44} {each:>10.1} us   target of the whole server: {target}");
}

/// Puts pods into the store as a server has left them that has run for a while.
async fn fill(server: &Server) {
    let row = server.registry.lookup("", "v1", "pods").expect("served");
    let collection = row.collection.clone().expect("stored");
    let sample = include_bytes!("../../codec/testdata/pod.json");
    let decoded = codec::decode(sample, codec::Media::Json, &row.types, row.ty(), Some(&row.gvk()));
    let sample = decoded.expect("good").value;
    for i in 0..PODS {
        let mut pod = sample.clone();
        let name = format!("web-{i:05}");
        pod.set(&["metadata", "name"], name.as_str());
        pod.set(&["metadata", "labels", "app"], format!("app-{}", i % 50));
        pod.set(&["spec", "nodeName"], format!("node-{}", i % 50));
        let value = collection.encode(&mut pod).expect("encoded");
        let key = collection.key("default", &name).expect("a key");
        let op = copepod_store::Op::Put { value, ttl_seconds: None };
        collection.store.txn(&key, 0, op).await.expect("written");
    }
}

/// What the edge does with a list: shared bodies between small pieces, copied into chunks.
fn send(listing: &Listing, form: Form) -> usize {
    let (mut chunk, mut sent) = (Vec::with_capacity(CHUNK_BYTES), 0);
    let mut put = |bytes: &[u8]| {
        if chunk.len() + bytes.len() > CHUNK_BYTES {
            chunk.clear();
        }
        chunk.extend_from_slice(bytes);
        sent += bytes.len();
    };
    let (now, mut parts) = (copepod_meta::time::now(), Vec::new());
    for (at, object) in listing.objects.iter().enumerate() {
        if let View::Row(include) = form.view {
            object.row_into(include, now, &mut parts).expect("a row");
            parts.drain(..).for_each(|part| put(&part));
            continue;
        }
        let body = object.body(form).expect("a body");
        put(&codec::frame::item_head(&body, at));
        put(&body.bytes);
    }
    std::hint::black_box(&chunk);
    sent
}

fn form(media: Media, view: View) -> Form {
    Form { media, view }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn measure_reads() {
    let server = Server::new().await;
    fill(&server).await;
    measure("fill the cache", "-", 1, async |_| drop(server.list(PATH, "").await.expect("listed"))).await;
    for (what, target, form) in [
        ("protobuf", "19 ms", form(Media::Protobuf, View::Object)),
        ("JSON", "27 ms", form(Media::Json, View::Object)),
        ("Table", "24 ms", form(Media::Json, View::Row(Include::Metadata))),
        ("PartialObjectMetadata", "-", form(Media::Json, View::Partial)),
    ] {
        let list = async |_| send(&server.list(PATH, "").await.expect("listed"), form);
        measure(&format!("first LIST, {what}"), "-", 1, list).await;
        measure(&format!("LIST, {what}"), target, 10, list).await;
        let bytes = list(0).await;
        println!("    {:.1} MiB", bytes as f64 / f64::from(1 << 20));
    }
    let json = form(Media::Json, View::Object);
    for (what, query) in
        [("label", "labelSelector=app%3Dapp-7"), ("spec.nodeName", "fieldSelector=spec.nodeName%3Dnode-7")]
    {
        let list = async |_| {
            let listing = server.list(PATH, query).await.expect("listed");
            assert_eq!(listing.objects.len(), PODS / 50);
            send(&listing, json)
        };
        measure(&format!("LIST of 1/50 by {what}"), "400 us", 200, list).await;
    }
    let get = async |round: u32| {
        let url = format!("{PATH}/web-{:05}", round as usize % PODS);
        server.send_only("get", &url, String::new()).await.expect("got")
    };
    measure("GET", "50 us", 20_000, get).await;
}

#[tokio::test]
#[ignore = "a measurement"]
async fn measure_writes() {
    const ROUNDS: u32 = 3000;
    let server = Server::new().await;
    // Somebody watches, as always: the cache follows.
    let watch = server.watch(PATH, "").await;
    let pod = big_pod();
    let create = async |round: u32| {
        let body = pod.replace("NAME", &format!("pod-{round}"));
        server.send_only("create", PATH, body).await.expect("created")
    };
    measure(&format!("create of {} bytes, JSON", pod.len()), "180 us", ROUNDS, create).await;
    let status = r#"{"status":{"phase":"Running","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"}],"conditions":[
        {"type":"Ready","status":"True","lastTransitionTime":"2026-01-02T03:04:05Z"},
        {"type":"ContainersReady","status":"True","lastTransitionTime":"2026-01-02T03:04:05Z"}],
        "containerStatuses":[{"name":"web","ready":true,"restartCount":0,"image":"i","imageID":"j","started":true,
        "state":{"running":{"startedAt":"2026-01-02T03:04:05Z"}}}]}}"#;
    let patch = async |round: u32| {
        let url = format!("{PATH}/pod-{round}/status");
        server.send_only("patch:strategic", &url, status.into()).await.expect("patched")
    };
    measure("strategic-merge patch of a status", "200 us", ROUNDS, patch).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let apply = async |round: u32| {
        let name = format!("map-{}", round % 100);
        let body = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","labels":{{"a":"b"}}}},
            "data":{{"round":"{round}","more":"text"}}}}"#
        );
        let url = format!("{maps}/{name}?fieldManager=me");
        server.send_only("patch:apply", &url, body).await.expect("applied")
    };
    measure("server-side apply of a ConfigMap", "100 us", ROUNDS, apply).await;
    drop(watch);
}
