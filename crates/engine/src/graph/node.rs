//! One loaded model that does a job, step by step, and says what happens.

use crate::{
    checkpoint::{Loaded, config::generation_defaults},
    classify::Classifier,
    error::{Error, Result},
    generate::{Decoding, Generator, Produced, Prompt},
    kernels::Pool,
    protocol::{Event, FailureKind, FinishReason, Job, Parameters, TextId, Work},
    tokenizer::Tokenizer,
};

/// A node's model, loaded.
#[derive(Debug)]
pub struct NodeModel {
    /// The model's name, as the host found it.
    pub name: String,
    /// Hash of the model's files in hexadecimal, if the host computed one.
    pub sha256: Option<String>,
    /// What it can do.
    pub task: LoadedTask,
}

/// What a loaded model can do.
#[derive(Debug)]
pub enum LoadedTask {
    /// Continue a text.
    Generate(Box<Generator>),
    /// Score a text.
    Classify(Box<Classifier>),
}

impl LoadedTask {
    /// Puts together what was read from a model's files: weights, tokenizer and `generation_config.json`.
    ///
    /// A generator's text ends where `generation_config.json` says, else `config.json`, else the tokenizer.
    ///
    /// # Errors
    /// [`Error::MissingTokenizer`] for a classifier without one, [`Error::Tokenizer`] if the tokenizer knows more ids than
    /// the model has embeddings, and those of [`generation_defaults`].
    pub fn new(
        model: Loaded,
        tokenizer: Option<Tokenizer>,
        generation_config: Option<&[u8]>,
    ) -> Result<LoadedTask> {
        Ok(match model {
            Loaded::Gpt2(model) => {
                let (defaults, mut end_of_text) = match generation_config {
                    Some(json) => generation_defaults(json)?,
                    None => (Parameters::default(), Vec::new()),
                };
                if end_of_text.is_empty() {
                    end_of_text.clone_from(&model.config().eos_token_ids);
                }
                if end_of_text.is_empty() {
                    end_of_text.extend(tokenizer.as_ref().and_then(Tokenizer::eos_id));
                }
                LoadedTask::Generate(Box::new(Generator::new(model, tokenizer, defaults, end_of_text)?))
            }
            Loaded::Encoder(model) => {
                let tokenizer = tokenizer.ok_or(Error::MissingTokenizer)?;
                LoadedTask::Classify(Box::new(Classifier::new(model, tokenizer)?))
            }
        })
    }
}

/// A job on its way: call [`RunningJob::step`] until it answers false.
#[derive(Debug)]
pub struct RunningJob<'m> {
    model: &'m NodeModel,
    job: &'m Job,
    state: State<'m>,
}

#[derive(Debug)]
enum State<'m> {
    New,
    Writing { prompt: &'m str, decoding: Box<Decoding<'m>>, ended: usize },
    Over,
}

impl NodeModel {
    /// Begins `job`. Nothing is computed before the first step.
    #[must_use]
    pub fn start<'m>(&'m self, job: &'m Job) -> RunningJob<'m> {
        RunningJob { model: self, job, state: State::New }
    }

    /// Does the whole job on this thread. `stop` is asked before every step; its answer ends the job.
    pub fn run(
        &self,
        job: &Job,
        pool: &dyn Pool,
        stop: &dyn Fn() -> Option<FailureKind>,
        emit: &mut dyn FnMut(Event),
    ) {
        let mut running = self.start(job);
        loop {
            if let Some(kind) = stop() {
                return running.stop(kind, emit);
            }
            if !running.step(pool, emit) {
                return;
            }
        }
    }
}

impl RunningJob<'_> {
    /// Does the next piece of the job, at most one run of the model; false when the job has ended.
    ///
    /// Errors become [`Event::Failed`], one for each text that will not come.
    pub fn step(&mut self, pool: &dyn Pool, emit: &mut dyn FnMut(Event)) -> bool {
        match self.try_step(pool, emit) {
            Ok(more) => more,
            Err(error) => {
                let kind =
                    if error.is_callers_mistake() { FailureKind::Invalid } else { FailureKind::Internal };
                self.fail(kind, &error.to_string(), emit);
                false
            }
        }
    }

    /// Ends the job before its time. A text that has begun is kept as far as it came, and is done with
    /// [`FinishReason::Stopped`]; what has not begun fails with `kind`.
    pub fn stop(&mut self, kind: FailureKind, emit: &mut dyn FnMut(Event)) {
        if kind == FailureKind::Stopped
            && let State::Writing { prompt, decoding, .. } = &mut self.state
        {
            let node = &self.job.node;
            let stopped = decoding.stop();
            for (sequence, _held) in stopped {
                emit(done(node, prompt, decoding, sequence, FinishReason::Stopped));
            }
            self.state = State::Over;
            return;
        }
        let reason = match kind {
            FailureKind::Deadline => "the deadline passed before the job was done",
            _ => "stopped before the job was done",
        };
        self.fail(kind, reason, emit);
    }

    fn try_step(&mut self, pool: &dyn Pool, emit: &mut dyn FnMut(Event)) -> Result<bool> {
        let node = &self.job.node;
        match (&mut self.state, &self.job.work, &self.model.task) {
            (
                State::New,
                Work::Generate { prompt, parameters, first_sequence },
                LoadedTask::Generate(generator),
            ) => {
                let decoding = generator.start(Prompt::Text(prompt), parameters, *first_sequence)?;
                emit(self.model.started(node, decoding.generation().prompt_tokens()));
                self.state = State::Writing { prompt, decoding: Box::new(decoding), ended: 0 };
                Ok(true)
            }
            (State::New, Work::Classify { text, source }, LoadedTask::Classify(classifier)) => {
                let encoded = classifier.encode(text)?;
                emit(self.model.started(node, encoded.ids.len()));
                let score = classifier.judge(&[encoded], pool)?.remove(0);
                emit(Event::Score { node: node.clone(), source: source.clone(), score });
                self.state = State::Over;
                Ok(false)
            }
            (State::New, work, _) => {
                let (asked, has) = match work {
                    Work::Generate { .. } => ("generate", "a classifier"),
                    Work::Classify { .. } => ("classify", "a generator"),
                };
                let name = &self.model.name;
                Err(Error::Architecture {
                    got: format!("{name}, {has}, asked to {asked}"),
                    supported: "a generator for `generate`, a classifier for `classify`",
                })
            }
            (State::Writing { prompt, decoding, ended }, ..) => {
                let Some(produced) = decoding.step(pool)? else {
                    self.state = State::Over;
                    return Ok(false);
                };
                for Produced { sequence, token, finish_reason } in produced {
                    emit(Event::Token { node: node.clone(), sequence, token });
                    if let Some(finish_reason) = finish_reason {
                        *ended += 1;
                        emit(done(node, prompt, decoding, sequence, finish_reason));
                    }
                }
                Ok(*ended < decoding.generation().sequences().len())
            }
            (State::Over, ..) => Ok(false),
        }
    }

    /// Announces a failure for every text that was asked for and has not come.
    fn fail(&mut self, kind: FailureKind, error: &str, emit: &mut dyn FnMut(Event)) {
        let node = &self.job.node;
        let failed = |text| Event::Failed { node: node.clone(), text, kind, error: error.into() };
        match &self.state {
            State::Over => {}
            State::Writing { decoding, .. } => {
                let open = decoding.generation().sequences().iter().filter(|s| s.finish_reason().is_none());
                for sequence in open {
                    emit(failed(Some(TextId { node: node.clone(), sequence: sequence.number() })));
                }
            }
            State::New => self.job.texts().into_iter().for_each(|text| emit(failed(text))),
        }
        self.state = State::Over;
    }
}

impl NodeModel {
    fn started(&self, node: &str, input_tokens: usize) -> Event {
        Event::Started {
            node: node.into(),
            model: self.name.clone(),
            model_sha256: self.sha256.clone(),
            input_tokens,
        }
    }
}

/// The end of one text of a decoding, as far as it came.
fn done(
    node: &str,
    prompt: &str,
    decoding: &Decoding<'_>,
    sequence: usize,
    finish_reason: FinishReason,
) -> Event {
    let found = decoding.generation().sequences().iter().find(|other| other.number() == sequence);
    let whole = found.expect("the loop's own number");
    Event::Done {
        node: node.into(),
        sequence,
        prompt: prompt.into(),
        completion: whole.text().to_string(),
        new_tokens: whole.new_ids().len(),
        finish_reason,
    }
}
