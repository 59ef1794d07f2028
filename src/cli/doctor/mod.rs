//! `copepod doctor`: what a cluster needs of the machine, and the command that mends what is missing.
//!
//! | module | what |
//! |---|---|
//! | [`machine`] | kernel, cgroups, disk, swap, limits |
//! | [`network`] | ports, bridge, addresses |
//! | [`programs`] | programs of others |
//!
//! A check asks the machine to do the thing where that leaves nothing behind (a bridge in a network namespace that ends
//! with the check), and reads files where it would.

pub mod machine;
pub mod network;
pub mod programs;

use crate::layout::Layout;
use crate::settings::Settings;
use crate::up;
use anyhow::bail;

pub use programs::find_program;

/// How bad it is that something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The cluster cannot do without it: `up` refuses.
    Needed,
    /// The cluster comes up, but something will not work as users expect: `up` says so.
    Warned,
    /// Good to have.
    Wished,
}

/// One thing looked at.
pub struct Finding {
    what: String,
    /// `Err`: missing, with the command that mends it.
    state: Result<String, String>,
    weight: Weight,
}

impl Finding {
    fn new(weight: Weight, what: impl Into<String>, state: Result<String, String>) -> Finding {
        Finding { what: what.into(), state, weight }
    }
}

fn findings(layout: &Layout, settings: &Settings) -> anyhow::Result<Vec<Finding>> {
    let mut out = vec![Finding::new(Weight::Needed, "runs as root", machine::root())];
    out.extend(programs::findings(settings));
    out.extend(machine::findings(layout, settings));
    out.extend(network::findings(layout, settings)?);
    Ok(out)
}

/// `copepod doctor`
pub fn run(layout: &Layout) -> anyhow::Result<()> {
    let settings = match Settings::read(layout)? {
        Some(settings) => settings,
        None => up::first_settings()?,
    };
    let findings = findings(layout, &settings)?;
    for finding in &findings {
        match (&finding.state, finding.weight) {
            (Ok(state), _) => println!("ok       {}: {state}", finding.what),
            (Err(mend), Weight::Needed) => println!("missing  {}: {mend}", finding.what),
            (Err(mend), Weight::Warned) => println!("warning  {}: {mend}", finding.what),
            (Err(mend), Weight::Wished) => println!("note     {}: {mend}", finding.what),
        }
    }
    let missing = findings.iter().filter(|f| f.weight == Weight::Needed && f.state.is_err()).count();
    if missing > 0 {
        bail!("{missing} thing(s) are missing; the commands above mend them");
    }
    Ok(())
}

/// What `up` with these settings cannot do without: an error that names each and its command. Returned are the warnings.
pub fn require(layout: &Layout, settings: &Settings) -> anyhow::Result<Vec<String>> {
    let (mut missing, mut warnings) = (Vec::new(), Vec::new());
    for finding in findings(layout, settings)? {
        let Err(mend) = finding.state else { continue };
        match finding.weight {
            Weight::Needed => missing.push(format!("  {}: {mend}", finding.what)),
            Weight::Warned => warnings.push(format!("{}: {mend}", finding.what)),
            Weight::Wished => {}
        }
    }
    match missing.is_empty() {
        true => Ok(warnings),
        false => bail!("this machine lacks something:\n{}", missing.join("\n")),
    }
}
