//! `cargo xtask bench`: how fast Inkling is on this machine, and beside what a user would run instead.
//!
//! - [`plan`]: what is asked for: parts, checkpoints, how often;
//! - [`checkpoints`]: full-size models, the peers' or made of seeded weights;
//! - [`native`]: models and the graph by the binary, checked before they are timed;
//! - [`kernels`]: criterion's benches of the kernels;
//! - [`page`]: the engine in Chromium;
//! - [`peers`]: other programs on the same weights, with Inkling's own figures taken between theirs;
//! - [`goals`]: ratios, and whether they are what they should be;
//! - [`record`]: the dated file that all figures go to.

mod checkpoints;
mod goals;
mod kernels;
mod native;
mod page;
mod peers;
mod plan;
mod record;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::process::show_duration;
use plan::{Part, Plan};
use record::Record;

/// Runs the command.
///
/// # Errors
/// If the arguments are wrong, something cannot be built or run, or a check fails: then nothing is timed.
pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    let Some(plan) = Plan::parse(args)? else {
        println!("{}", plan::HELP);
        return Ok(ExitCode::SUCCESS);
    };
    let started = Instant::now();
    let mut record = Record::of_today(&plan)?;
    let models = checkpoints::folder(&plan)?;
    let inkling = native::Inkling::build(&models)?;
    record.checks(inkling.check(&plan)?);
    for &part in &plan.parts {
        println!("\n== {}: {}", part.name(), part.what());
        let figures = match part {
            Part::Kernels => kernels::run_all(&plan, &inkling)?,
            Part::Models => inkling.models(&plan)?,
            Part::Graph => inkling.graph(&plan)?,
            Part::Page => page::run(&plan, &models)?,
            Part::PeersNative => peers::native(&plan, &inkling)?,
            Part::PeersPage => peers::page(&plan, &models)?,
            Part::PeersPageGraph => peers::page_graph(&plan, &models)?,
            Part::PeersServer => peers::server(&plan, &inkling)?,
        };
        for figure in &figures {
            println!("   {}", figure.line());
        }
        // Written after each part, so that a later one that fails takes nothing away.
        record.take(part, figures);
        record.write()?;
    }
    let goals = goals::judge(&record);
    println!("\n== goals");
    for goal in &goals {
        println!("   {}", goal.line());
    }
    println!("\n   written: {} ({})", record.path().display(), show_duration(started.elapsed()));
    Ok(ExitCode::SUCCESS)
}
