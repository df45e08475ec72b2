//! What a run of the bench is to do.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::tools::folder;
use crate::workspace_root;

pub(super) const HELP: &str = "\
Measure Inkling on this machine, and write benches/record/DATE-CPU.md

Usage: cargo xtask bench [--quick] [--only PART..]

Options:
  --quick       Each figure once and with fewer rounds: to see that it works, not for the record
  --only PART.. Run only these parts; figures of other parts that today's record has stay in it
  -h, --help    Print this text

Parts:
  kernels       Products, attention, norms, log-sum-exp; reads of memory beside them (criterion)
  models        GPT-2, DistilGPT-2, BERT by `inkling bench`: prompt, continuation, load, memory
  graph         The default graph at full size with 1, 4 and 8 clients
  page          GPT-2 and the graph in headless Chromium
  peers         All of the following; also run without --only where PEERS_HOME is set
  peers-native      llama.cpp and PyTorch
  peers-page        transformers.js and wllama in Chromium
  peers-page-graph  the graph on transformers.js, a worker a model
  peers-server      the graph on BentoML with 1, 4 and 8 clients

Results are checked before anything is timed.

Checkpoints of full size come from PEERS_HOME/hub if PEERS_HOME is set. Otherwise they are made of seeded weights, once
(1.3 GB under target/bench), with the demo models' tokenizers: speed does not depend on what weights say.

Peers are what a user would run instead, installed in PEERS_HOME. The scripts that run them (native.sh, browser.mjs,
seed.sh) are looked for in PEERS_SCRIPTS, else in $INKLING_SHARED/peers. Machines drift: Inkling is timed again between
peers, and ratios are of one sitting.";

/// A part of the bench, in the order of running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Kernels,
    Models,
    Graph,
    Page,
    PeersNative,
    PeersPage,
    PeersPageGraph,
    PeersServer,
}

impl Part {
    const ALL: [Part; 8] = [
        Part::Kernels,
        Part::Models,
        Part::Graph,
        Part::Page,
        Part::PeersNative,
        Part::PeersPage,
        Part::PeersPageGraph,
        Part::PeersServer,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Part::Kernels => "kernels",
            Part::Models => "models",
            Part::Graph => "graph",
            Part::Page => "page",
            Part::PeersNative => "peers-native",
            Part::PeersPage => "peers-page",
            Part::PeersPageGraph => "peers-page-graph",
            Part::PeersServer => "peers-server",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Part> {
        Part::ALL.into_iter().find(|part| part.name() == name)
    }

    pub(super) fn what(self) -> &'static str {
        match self {
            Part::Kernels => "kernels beside plain reads of memory",
            Part::Models => "models of full size, natively",
            Part::Graph => "the default graph at full size, natively",
            Part::Page => "GPT-2 and the graph in Chromium",
            Part::PeersNative => "llama.cpp and PyTorch, Inkling before and after them",
            Part::PeersPage => "transformers.js and wllama in Chromium, Inkling between them",
            Part::PeersPageGraph => "the graph in Chromium: transformers.js, Inkling before and after it",
            Part::PeersServer => "the graph on BentoML, Inkling before and after it",
        }
    }

    fn is_of_peers(self) -> bool {
        self.name().starts_with("peers")
    }
}

/// What a run of the bench is to do.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) quick: bool,
    pub(super) parts: Vec<Part>,
    /// Where the peers are installed.
    pub(super) peers: Option<PathBuf>,
    /// The scripts that run them.
    pub(super) scripts: Option<PathBuf>,
}

impl Plan {
    /// None if help is asked for.
    ///
    /// # Errors
    /// If an argument is unknown, or peers are asked for that are not there.
    pub(super) fn parse(args: &[String]) -> Result<Option<Plan>> {
        let scripts = folder("PEERS_SCRIPTS")
            .or_else(|| folder("INKLING_SHARED").map(|shared| shared.join("peers")))
            .map(|scripts| workspace_root().join(scripts));
        Plan::new(args, folder("PEERS_HOME"), scripts)
    }

    fn new(args: &[String], peers: Option<PathBuf>, scripts: Option<PathBuf>) -> Result<Option<Plan>> {
        let (mut quick, mut naming, mut wanted) = (false, false, Vec::new());
        for arg in args {
            match arg.as_str() {
                "--help" | "-h" => return Ok(None),
                "--quick" => (quick, naming) = (true, false),
                "--only" => naming = true,
                "peers" if naming => wanted.extend(Part::ALL.into_iter().filter(|part| part.is_of_peers())),
                name if naming && !name.starts_with('-') => {
                    let part = Part::of_name(name);
                    let names = Part::ALL.map(Part::name).join(", ");
                    wanted.push(
                        part.with_context(|| format!("expected a part ({names}, peers), got `{name}`"))?,
                    );
                }
                _ => bail!("expected --quick, --only PART.. or --help, got `{arg}`"),
            }
        }
        if wanted.is_empty() && naming {
            bail!("expected a part after --only");
        }
        let parts = Part::ALL.into_iter().filter(|part| match wanted.as_slice() {
            [] => !part.is_of_peers() || peers.is_some(),
            wanted => wanted.contains(part),
        });
        let parts: Vec<Part> = parts.collect();
        if parts.iter().any(|part| part.is_of_peers()) {
            if peers.is_none() {
                bail!("expected PEERS_HOME to name the folder that the peers are installed in");
            }
            if !scripts.as_ref().is_some_and(|scripts| scripts.join("native.sh").is_file()) {
                bail!(
                    "expected the scripts that run the peers (native.sh, browser.mjs, seed.sh) in PEERS_SCRIPTS, or in \
                     peers/ of the folder that INKLING_SHARED names"
                );
            }
        }
        Ok(Some(Plan { quick, parts, peers, scripts }))
    }

    /// How often a program is started for a figure.
    pub(super) fn runs(&self) -> usize {
        if self.quick { 1 } else { 3 }
    }

    /// How often a program takes a figure each time, for its median.
    pub(super) fn rounds(&self) -> usize {
        if self.quick { 3 } else { 5 }
    }

    /// The folder with everything that the bench makes.
    pub(super) fn scratch() -> PathBuf {
        workspace_root().join("target/bench")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(line: &str, peers: Option<&str>) -> Result<String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let scripts = tempfile_with_native_sh();
        let plan = Plan::new(&args, peers.map(PathBuf::from), Some(scripts))?;
        Ok(plan.map_or_else(
            || "help".into(),
            |plan| plan.parts.iter().map(|part| part.name()).collect::<Vec<_>>().join(" "),
        ))
    }

    fn tempfile_with_native_sh() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("inkling-bench-plan-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("native.sh"), "").unwrap();
        folder
    }

    #[test]
    fn peers_run_where_they_are_installed() {
        assert_eq!(parts("", None).unwrap(), "kernels models graph page");
        let all = "kernels models graph page peers-native peers-page peers-page-graph peers-server";
        assert_eq!(parts("--quick", Some("x")).unwrap(), all);
        assert!(parts("--only peers", None).unwrap_err().to_string().contains("PEERS_HOME"));
    }

    #[test]
    fn parts_run_in_their_own_order() {
        assert_eq!(parts("--only page models --quick", None).unwrap(), "models page");
        assert_eq!(parts("--only peers-page graph", Some("x")).unwrap(), "graph peers-page");
        assert_eq!(
            parts("--only x --help", None).unwrap_err().to_string().split(" (").next(),
            Some("expected a part")
        );
        assert!(parts("--only", None).is_err());
        assert!(parts("models", None).is_err());
        assert_eq!(parts("-h", None).unwrap(), "help");
    }
}
