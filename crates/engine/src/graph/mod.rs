//! The graph of models: what a graph file says, how a run of it proceeds, and what comes out.
//!
//! - [`spec`]: a TOML file of nodes becomes a checked [`Graph`];
//! - [`run`]: the only graph runner, a state machine that hands out jobs and takes back events;
//! - [`node`]: one loaded model that does a job, step by step, and says what happens;
//! - [`answer`]: the fold of a run's events into rows.

pub mod answer;
#[cfg(feature = "models")]
pub mod node;
pub mod run;
pub mod spec;

pub use answer::Answer;
#[cfg(feature = "models")]
pub use node::NodeModel;
pub use run::Run;
pub use spec::Graph;
