//! One loaded model that does a job, step by step, and says what happens.

use crate::{
    checkpoint::{Loaded, config::generation_defaults},
    classify::{Classifier, Encoded},
    error::{Error, Result},
    generate::{Decoding, Generator, Produced, Prompt},
    kernels::Pool,
    protocol::{Classification, Event, FailureKind, FinishReason, Job, Parameters, TextId, Work},
    tokenizer::Tokenizer,
};

/// Most tokens of texts that are scored together, where one has not more by itself: more would not be faster, and the first
/// would wait for the last.
const SCORED: usize = 64;

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

    /// Whether the model's numbers may depend on what runs beside it: see [`crate::model::gpt2::Gpt2::has_f32_products`].
    fn has_f32_products(&self) -> bool {
        match self {
            LoadedTask::Generate(generator) => generator.model().has_f32_products(),
            LoadedTask::Classify(classifier) => classifier.model().has_f32_products(),
        }
    }
}

/// A host's jobs of one node: where they come from, and where what happens goes to.
pub trait Jobs {
    /// The next job that waits, and what to call it here, if it may begin beside others that write or score `texts`.
    fn next(&self, texts: usize) -> Option<(u64, Job)>;
    /// Why a job shall end before its time, if it shall.
    fn stop(&self, job: u64) -> Option<FailureKind>;
    /// Takes an event of a job.
    fn emit(&self, job: u64, event: Event);
}

/// A job on its way: call [`RunningJob::step`] until it answers false.
#[derive(Debug)]
pub struct RunningJob<'m> {
    model: &'m NodeModel,
    /// What its host calls it.
    name: u64,
    job: Job,
    state: State<'m>,
}

#[derive(Debug)]
enum State<'m> {
    New,
    Writing(Box<Decoding<'m>>),
    Scoring(Encoded),
    Over,
}

impl NodeModel {
    /// Begins `job`. Nothing is computed before the first step.
    #[must_use]
    pub fn start(&self, job: Job) -> RunningJob<'_> {
        RunningJob { model: self, name: 0, job, state: State::New }
    }

    /// Does jobs until none waits: side by side, so that a run of the model reads the weights once for all of them. A text
    /// gets the same numbers whatever is beside it. With weights in f32 it would not, and jobs are done one by one.
    pub fn work(&self, jobs: &dyn Jobs, pool: &dyn Pool) {
        let one_by_one = self.task.has_f32_products();
        let mut running: Vec<RunningJob<'_>> = Vec::new();
        loop {
            while running.is_empty() || !one_by_one {
                let Some((name, job)) = jobs.next(running.iter().map(RunningJob::texts).sum()) else { break };
                let mut job = RunningJob { name, ..self.start(job) };
                job.begin(&mut |event| jobs.emit(name, event));
                running.extend((!job.is_over()).then_some(job));
            }
            if running.is_empty() {
                return;
            }
            for job in &mut running {
                if let Some(kind) = jobs.stop(job.name) {
                    let name = job.name;
                    job.stop(kind, &mut |event| jobs.emit(name, event));
                }
            }
            self.step(&mut running, pool, &mut |name, event| jobs.emit(name, event));
            running.retain(|job| !job.is_over());
        }
    }

    /// [`RunningJob::step`] for several jobs that have begun, with one run of the model for all of them.
    fn step(&self, jobs: &mut [RunningJob<'_>], pool: &dyn Pool, emit: &mut dyn FnMut(u64, Event)) {
        match &self.task {
            LoadedTask::Generate(generator) => {
                let mut decodings: Vec<_> = jobs.iter_mut().filter_map(RunningJob::decoding).collect();
                let produced = generator.step(&mut decodings, pool);
                let writing = jobs.iter_mut().filter(|job| matches!(job.state, State::Writing(_)));
                each(writing, produced, RunningJob::wrote, emit);
            }
            LoadedTask::Classify(classifier) => {
                let (mut scoring, mut texts) = (Vec::new(), Vec::new());
                let mut tokens = 0;
                for job in jobs {
                    let State::Scoring(text) = &mut job.state else { continue };
                    tokens += text.ids.len();
                    if texts.is_empty() || tokens <= SCORED {
                        texts.push(std::mem::take(text));
                        scoring.push(job);
                    }
                }
                let scores = classifier.judge(&texts, pool);
                let scores = scores.map(|scores| scores.into_iter().map(Ok).collect());
                each(scoring, scores, RunningJob::scored, emit);
            }
        }
    }

    fn started(&self, node: &str, input_tokens: usize) -> Event {
        Event::Started {
            node: node.into(),
            model: self.name.clone(),
            model_sha256: self.sha256.clone(),
            input_tokens,
        }
    }
}

impl<'m> RunningJob<'m> {
    /// Does the next piece of the job, at most one run of the model; false when the job has ended.
    ///
    /// Errors become [`Event::Failed`], one for each text that will not come.
    pub fn step(&mut self, pool: &dyn Pool, emit: &mut dyn FnMut(Event)) -> bool {
        match (&mut self.state, &self.model.task) {
            (State::New, _) => self.begin(emit),
            (State::Writing(decoding), _) => {
                let produced = decoding.step(pool);
                self.wrote(produced, emit);
            }
            (State::Scoring(text), LoadedTask::Classify(classifier)) => {
                let score = classifier.judge(std::slice::from_ref(text), pool);
                self.scored(score.map(|mut scores| scores.remove(0)), emit);
            }
            (State::Scoring(_) | State::Over, _) => {}
        }
        !self.is_over()
    }

    /// Ends the job before its time. A text that has begun is kept as far as it came, and is done with
    /// [`FinishReason::Stopped`]; what has not begun fails with `kind`.
    pub fn stop(&mut self, kind: FailureKind, emit: &mut dyn FnMut(Event)) {
        if kind == FailureKind::Stopped
            && let State::Writing(decoding) = &mut self.state
        {
            for (sequence, _held) in decoding.stop() {
                emit(done(&self.job, decoding, sequence, FinishReason::Stopped));
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

    fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Texts that it writes or scores.
    fn texts(&self) -> usize {
        match &self.state {
            State::Writing(decoding) => decoding.generation().running().count(),
            State::New | State::Scoring(_) => 1,
            State::Over => 0,
        }
    }

    fn decoding<'a>(&'a mut self) -> Option<&'a mut Decoding<'m>> {
        match &mut self.state {
            State::Writing(decoding) => Some(decoding),
            _ => None,
        }
    }

    fn begin(&mut self, emit: &mut dyn FnMut(Event)) {
        match self.try_begin() {
            Ok((state, input_tokens)) => {
                emit(self.model.started(&self.job.node, input_tokens));
                self.state = state;
            }
            Err(error) => self.break_off(&error, emit),
        }
    }

    /// What the job does from now on, and the tokens of its input.
    fn try_begin(&self) -> Result<(State<'m>, usize)> {
        match (&self.job.work, &self.model.task) {
            (Work::Generate { prompt, parameters, first_sequence }, LoadedTask::Generate(generator)) => {
                let decoding = generator.start(Prompt::Text(prompt), parameters, *first_sequence)?;
                let tokens = decoding.generation().prompt_tokens();
                Ok((State::Writing(Box::new(decoding)), tokens))
            }
            (Work::Classify { text, .. }, LoadedTask::Classify(classifier)) => {
                let text = classifier.encode(text)?;
                let tokens = text.ids.len();
                Ok((State::Scoring(text), tokens))
            }
            (work, _) => {
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
        }
    }

    /// Announces what a step gave; `None` when all texts have ended.
    fn wrote(&mut self, produced: Result<Option<Vec<Produced>>>, emit: &mut dyn FnMut(Event)) {
        let State::Writing(decoding) = &mut self.state else { return };
        match produced {
            Ok(None) => self.state = State::Over,
            Ok(Some(produced)) => {
                for Produced { sequence, token, finish_reason } in produced {
                    emit(Event::Token { node: self.job.node.clone(), sequence, token });
                    if let Some(finish_reason) = finish_reason {
                        emit(done(&self.job, decoding, sequence, finish_reason));
                    }
                }
                if decoding.generation().running().next().is_none() {
                    self.state = State::Over;
                }
            }
            Err(error) => self.break_off(&error, emit),
        }
    }

    /// Announces a score.
    fn scored(&mut self, score: Result<Classification>, emit: &mut dyn FnMut(Event)) {
        match (score, &self.job.work) {
            (Ok(score), Work::Classify { source, .. }) => {
                emit(Event::Score { node: self.job.node.clone(), source: source.clone(), score });
                self.state = State::Over;
            }
            (Ok(_), Work::Generate { .. }) => unreachable!("such a job has no text to score"),
            (Err(error), _) => self.break_off(&error, emit),
        }
    }

    fn break_off(&mut self, error: &Error, emit: &mut dyn FnMut(Event)) {
        let kind = if error.is_callers_mistake() { FailureKind::Invalid } else { FailureKind::Internal };
        self.fail(kind, &error.to_string(), emit);
    }

    /// Announces a failure for every text that was asked for and has not come.
    fn fail(&mut self, kind: FailureKind, error: &str, emit: &mut dyn FnMut(Event)) {
        let node = &self.job.node;
        let failed = |text| Event::Failed { node: node.clone(), text, kind, error: error.into() };
        match &self.state {
            State::Over => {}
            State::Writing(decoding) => {
                for sequence in decoding.generation().running() {
                    emit(failed(Some(TextId { node: node.clone(), sequence: sequence.number() })));
                }
            }
            State::New | State::Scoring(_) => {
                self.job.texts().into_iter().for_each(|text| emit(failed(text)))
            }
        }
        self.state = State::Over;
    }
}

/// Gives each of `jobs` its outcome of a run of the model, or all the error that kept it from running.
fn each<'j, 'm: 'j, T>(
    jobs: impl IntoIterator<Item = &'j mut RunningJob<'m>>,
    outcomes: Result<Vec<Result<T>>>,
    take: impl Fn(&mut RunningJob<'m>, Result<T>, &mut dyn FnMut(Event)),
    emit: &mut dyn FnMut(u64, Event),
) {
    match outcomes {
        Ok(outcomes) => {
            for (job, outcome) in jobs.into_iter().zip(outcomes) {
                let name = job.name;
                take(job, outcome, &mut |event| emit(name, event));
            }
        }
        Err(error) => {
            for job in jobs {
                let name = job.name;
                job.break_off(&error, &mut |event| emit(name, event));
            }
        }
    }
}

/// The end of one text of a decoding, as far as it came.
fn done(job: &Job, decoding: &Decoding<'_>, sequence: usize, finish_reason: FinishReason) -> Event {
    let found = decoding.generation().sequences().iter().find(|other| other.number() == sequence);
    let whole = found.expect("the loop's own number");
    let prompt = match &job.work {
        Work::Generate { prompt, .. } => prompt.clone(),
        Work::Classify { text, .. } => text.clone(),
    };
    Event::Done {
        node: job.node.clone(),
        sequence,
        prompt,
        completion: whole.text().to_string(),
        new_tokens: whole.new_ids().len(),
        finish_reason,
    }
}
