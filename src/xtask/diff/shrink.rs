//! Makes a script smaller as long as it still shows the same difference.

use async_trait::async_trait;
use serde_json::Value as Json;

use super::object::leaves;
use super::script::{Script, pointer_of, remove};

/// Runs that one difference may cost.
const TRIALS_MAX: usize = 60;

/// Tells whether a script still shows what is looked for.
#[async_trait]
pub trait Judge: Send {
    /// One run.
    async fn shows(&mut self, script: &Script) -> anyhow::Result<bool>;
}

/// The smallest script found.
/// `step` is where the difference shows: what comes after it is tried without at once.
pub async fn shrink(mut script: Script, step: usize, judge: &mut dyn Judge) -> anyhow::Result<Script> {
    let mut trials = 0;
    let mut candidate = script.clone();
    candidate.steps.truncate(step + 1);
    accept(&mut script, candidate, &mut trials, judge).await?;
    let mut smaller = true;
    while smaller && trials < TRIALS_MAX {
        smaller = false;
        for index in (0..script.steps.len()).rev() {
            let mut candidate = script.clone();
            candidate.steps.remove(index);
            smaller |= accept(&mut script, candidate, &mut trials, judge).await?;
        }
        for index in 0..script.steps.len() {
            for candidate in simpler_requests(&script, index) {
                smaller |= accept(&mut script, candidate, &mut trials, judge).await?;
            }
            smaller |= bodies(&mut script, index, &mut trials, judge).await?;
        }
    }
    Ok(script)
}

async fn accept(
    script: &mut Script,
    candidate: Script,
    trials: &mut usize,
    judge: &mut dyn Judge,
) -> anyhow::Result<bool> {
    if *trials >= TRIALS_MAX || candidate == *script {
        return Ok(false);
    }
    *trials += 1;
    let shows = judge.shows(&candidate).await?;
    if shows {
        *script = candidate;
    }
    Ok(shows)
}

/// Without a query parameter, an edit, a media type.
fn simpler_requests(script: &Script, index: usize) -> Vec<Script> {
    let step = &script.steps[index];
    let mut out = Vec::new();
    let mut with = |change: &dyn Fn(&mut super::script::Step)| {
        let mut candidate = script.clone();
        change(&mut candidate.steps[index]);
        out.push(candidate);
    };
    if let Some((path, query)) = step.ask.split_once('?') {
        for part in query.split('&').filter(|p| !p.starts_with("watch=")) {
            let rest: Vec<&str> = query.split('&').filter(|p| *p != part).collect();
            let ask = if rest.is_empty() { path.to_string() } else { format!("{path}?{}", rest.join("&")) };
            with(&|step| step.ask.clone_from(&ask));
        }
    }
    with(&|step| step.accept.clear());
    if !step.ask.starts_with("PATCH") {
        with(&|step| step.content_type.clear());
    }
    if let Some(edit) = &step.edit {
        for pointer in edit.set.keys() {
            with(&|step| drop(step.edit.as_mut().map(|e| e.set.remove(pointer))));
        }
        for pointer in &edit.remove {
            with(&|step| {
                if let Some(edit) = &mut step.edit {
                    edit.remove.retain(|p| p != pointer);
                }
            });
        }
    }
    out
}

/// Takes members away, the large ones first.
async fn bodies(
    script: &mut Script,
    index: usize,
    trials: &mut usize,
    judge: &mut dyn Judge,
) -> anyhow::Result<bool> {
    let mut smaller = false;
    let mut depth = 1;
    loop {
        let Some(body) = &script.steps[index].body else { return Ok(smaller) };
        let mut places = Vec::new();
        leaves(body, &mut Vec::new(), &mut places);
        let deepest = places.iter().map(Vec::len).max().unwrap_or(0);
        if depth > deepest || *trials >= TRIALS_MAX {
            return Ok(smaller);
        }
        // From the end, so that the indexes of lists stay what they were.
        for place in places.iter().filter(|p| p.len() == depth).rev() {
            let mut candidate = script.clone();
            remove(candidate.steps[index].body.get_or_insert(Json::Null), &pointer_of(place));
            smaller |= accept(script, candidate, trials, judge).await?;
        }
        depth += 1;
    }
}
