//! PodTemplate. upstream: pkg/registry/core/podtemplate/strategy.go, validation.go ValidatePodTemplate

use copepod_meta::{ErrorList, Value};

use super::pod::options::Options;
use super::pod::{annotations, defaults, template, warnings};
use crate::apps::TEMPLATE;
use crate::cells;
use crate::check::At;
use crate::equality::same_as;
use crate::generic::bump_generation;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct PodTemplate;

fn convert(object: &mut Value) {
    if let Some(template) = object.at_mut(&["template"]) {
        defaults::convert_template(template);
    }
}

impl Strategy for PodTemplate {
    fn default(&self, _version: &str, object: &mut Value) {
        defaults::template(object.make(&["template"]));
    }
    fn to_hub(&self, _version: &str, object: &mut Value) {
        convert(object);
    }
    fn from_hub(&self, _version: &str, object: &mut Value) {
        convert(object);
    }
    fn prepare_create(&self, _cx: &Context, object: &mut Value) {
        crate::core::pod::template::drop_disabled(object, None, &["template", "spec"]);
        object.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        crate::core::pod::template::drop_disabled(object, Some(old), &["template", "spec"]);
        if !same_as(object.get("template"), old.get("template"), TEMPLATE) {
            bump_generation(object, old);
        }
    }
    fn validate_create(&self, cx: &Context, object: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(object, e);
        template::validate(At::root(object).get("template"), &Options::new(cx, None), e);
    }
    fn validate_update(&self, cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(object, old, e);
        let mut opts = Options::new(cx, Some(old.at(&["template", "spec"])));
        opts.invalid_deletion_cost =
            annotations::deletion_cost(old.at(&["template", "metadata", "annotations"])).is_err();
        template::validate(At::root(object).get("template"), &opts, e);
    }
    fn warnings(&self, _cx: &Context, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        let generation = |v: &Value| v.at(&["metadata", "generation"]).as_int();
        if old.is_some_and(|old| generation(old) == generation(object)) {
            return out;
        }
        warnings::of_template(object, "template", &mut out);
        out
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("core/PodTemplate")
    }
    fn row(&self, object: &Value) -> Row {
        let (names, images) = cells::containers(object.at(&["template", "spec"]));
        let labels = cells::labels(object.at(&["template", "metadata", "labels"]));
        cells::row([cells::name(object), names, images, labels.into()])
    }
}
