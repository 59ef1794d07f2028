//! Scripts of applies and updates, step by step as upstream's field manager plays them:
//! `testdata/apply_goldens.json`, renewed by `cd hack/upstream && go run ./cmd/patch-goldens -dir
//! ../../src/merge/testdata`.

use copepod_codec::{from_untyped, to_untyped};

use super::*;

fn parse(text: &[u8]) -> Option<Value> {
    copepod_codec::decode_untyped(text).ok().map(|(value, _)| value)
}

/// The object as a golden shows it: managers in an order of their own, without times.
fn shown(object: &Value) -> String {
    let mut object = object.clone();
    if let Some(Value::List(entries)) = object.at_mut(&["metadata", "managedFields"]) {
        for entry in entries.iter_mut() {
            entry.remove(&["time"]);
        }
        entries.sort_by_key(debug_json::to_string);
    }
    debug_json::to_string(&object)
}

struct Script<'s> {
    universe: &'static Universe,
    ty: TypeId,
    gvk: Gvk,
    steps: &'s [Value],
}

impl Script<'_> {
    /// A plain tree as the typed object has it.
    fn typed(&self, plain: &Value) -> Value {
        let decoded = from_untyped(plain, self.universe, self.ty, Some(&self.gvk)).expect("fits");
        to_untyped(&decoded.value, self.universe, self.ty, Some(&self.gvk))
    }

    fn run(&self, step: &Value, live: &Value) -> Result<Value, String> {
        let empty = self.typed(&Value::map());
        let context = Context {
            universe: self.universe,
            ty: self.ty,
            gvk: &self.gvk,
            subresource: "",
            reset_fields: None,
            versions: &NoOtherVersions,
            empty: &empty,
            now: "2026-11-21T00:00:00Z",
            parse_json: &parse,
        };
        let (manager, object) = (step.str_at(&["manager"]), step.get("object"));
        let (mut object, managed_fields) = if step.str_at(&["op"]) == "apply" {
            let force = step.bool_at(&["force"]);
            let applied = apply(&context, live.clone(), object, manager, force).map_err(|e| e.to_string())?;
            (applied.object, applied.managed_fields)
        } else {
            let new = self.typed(object);
            let managed_fields = update(&context, live.clone(), new.clone(), manager);
            (new, managed_fields)
        };
        object.set(&["metadata", "managedFields"], managed_fields);
        Ok(self.typed(&object))
    }

    fn play(&self, failures: &mut Vec<String>, name: &str) -> usize {
        let mut live = self.typed(&Value::map());
        for (index, step) in self.steps.iter().enumerate() {
            let want = match step.str_at(&["error"]) {
                "" => Ok(shown(step.get("live"))),
                error => Err(error.to_string()),
            };
            let got = self.run(step, &live);
            let got_shown = got.as_ref().map(shown).map_err(Clone::clone);
            if got_shown != want {
                failures.push(format!("{name}, step {index}\n got  {got_shown:?}\n want {want:?}"));
            }
            // Each step stands on upstream's state, so that one failure does not bring others.
            match (got, step.get("live")) {
                (Ok(object), _) if want.is_ok() && got_shown == want => live = object,
                (_, Value::Null) => {}
                (_, object) => live = self.typed(object),
            }
        }
        self.steps.len()
    }
}

#[test]
fn scripts_go_as_upstreams() {
    let goldens = parse(include_bytes!("../testdata/apply_goldens.json")).expect("JSON");
    let (mut failures, mut steps) = (Vec::new(), 0);
    for script in goldens.as_list().expect("a list") {
        let kind = script.str_at(&["kind"]);
        let gvk = Gvk::new(if kind == "Deployment" { "apps" } else { "" }, "v1", kind);
        let universe = Universe::builtin();
        let ty = universe.by_gvk(&gvk).expect("facts");
        let script_steps = script.list_at(&["steps"]);
        let played = Script { universe, ty, gvk, steps: script_steps };
        steps += played.play(&mut failures, script.str_at(&["name"]));
    }
    assert!(failures.is_empty(), "{} of {steps} steps:\n{}", failures.len(), failures.join("\n"));
}
