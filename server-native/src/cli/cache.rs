//! `inkling cache`: the packed copies of large models.

use std::{process::ExitCode, time::SystemTime};

use anyhow::{Context, Result};
use clap::{ArgGroup, Args};

use super::{complain, print, print_json};
use crate::{
    Mistake,
    cache::{Cache, LIMIT_BYTES, Listed},
};

/// List the packed copies of large models, or remove them
///
/// A large checkpoint is packed when it is first loaded, and a copy of that is kept, so that later loads are short. They
/// are in $INKLING_CACHE_DIR, else $XDG_CACHE_HOME/inkling, else ~/.cache/inkling, in the folder `packed`. Copies whose
/// model has changed or is gone are removed by themselves, and beyond 8 GB those that were not used for longest. All of
/// them may be removed at any time: they are made again.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").args(["remove", "clear"]))]
#[command(
    after_help = "Examples:\n  inkling cache\n  inkling cache --remove openai-community/gpt2\n  inkling cache --clear"
)]
pub(super) struct Arguments {
    /// Remove the copies of this model, named as in the list; may be given several times
    #[arg(long, value_name = "MODEL")]
    remove: Vec<String>,
    /// Remove all
    #[arg(long)]
    clear: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const _: () = assert!(LIMIT_BYTES == 8 << 30, "the help names the limit");

pub(super) fn main(arguments: &Arguments) -> Result<ExitCode> {
    let cache = Cache::from_env(complain).context("no home folder is known; set INKLING_CACHE_DIR")?;
    let entries = || {
        let entries = cache.entries();
        entries.with_context(|| format!("cannot read {}", cache.folder().display()))
    };
    if arguments.clear || !arguments.remove.is_empty() {
        let known = entries()?;
        if let Some(unknown) =
            arguments.remove.iter().find(|name| known.iter().all(|entry| entry.model != **name))
        {
            let folder = cache.folder().display();
            return Err(Mistake(format!("there is no packed copy of {unknown} in {folder}")).into());
        }
        let freed = cache
            .remove(|entry| arguments.clear || arguments.remove.contains(&entry.model))
            .with_context(|| format!("cannot remove packed copies from {}", cache.folder().display()))?;
        match arguments.json {
            true => print_json(&serde_json::json!({"freed_bytes": freed}))?,
            false => print(&format!("freed {}\n", megabytes(freed)))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let entries = entries()?;
    let total: u64 = entries.iter().map(|entry| entry.size_bytes).sum();
    if arguments.json {
        let list = serde_json::json!({"folder": cache.folder(), "size_bytes": total, "models": entries});
        print_json(&list)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text: String = entries.iter().map(line).collect();
    text += &format!("{} in {}\n", megabytes(total), cache.folder().display());
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn line(entry: &Listed) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs());
    let used = match now.saturating_sub(entry.used) / 86_400 {
        0 => "used in the last 24 hours".to_string(),
        1 => "used a day ago".to_string(),
        days => format!("used {days} days ago"),
    };
    format!("{:40} {:4} {:>9}  {used}\n", entry.model, entry.dtype, megabytes(entry.size_bytes))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
