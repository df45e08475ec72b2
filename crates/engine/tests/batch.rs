//! Jobs that a model does side by side: each gives what it gives alone.

#![expect(clippy::unwrap_used, reason = "a test may panic, and its helpers with it")]

#[path = "support/files.rs"]
mod files;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fs,
    path::PathBuf,
};

use files::Files;
use inkling_engine::{
    checkpoint::Dtype,
    graph::{
        NodeModel,
        node::{Jobs, LoadedTask},
    },
    kernels::SingleThread,
    protocol::{Event, FailureKind, FinishReason, Job, Parameters, Work},
    tokenizer::Tokenizer,
};

fn demo(name: &str, dtype: Dtype) -> NodeModel {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "..", "models", "demo", name].iter().collect();
    let tokenizer = Tokenizer::from_json(&fs::read(folder.join("tokenizer.json")).unwrap()).unwrap();
    let task =
        LoadedTask::new(Files::in_folder(&folder).load(dtype).unwrap(), Some(tokenizer), None).unwrap();
    NodeModel { name: name.into(), sha256: None, task }
}

fn write(prompt: &str, seed: u64, sequences: usize, max_new_tokens: usize) -> Job {
    let parameters = Parameters {
        seed: Some(seed),
        num_return_sequences: Some(sequences),
        max_new_tokens: Some(max_new_tokens),
        ..Parameters::default()
    };
    let work = Work::Generate { prompt: prompt.into(), parameters, first_sequence: 0 };
    Job { node: "writer".into(), work }
}

fn score(text: &str) -> Job {
    Job { node: "critic".into(), work: Work::Classify { text: text.into(), source: None } }
}

/// A queue that lets one job begin before each step, or all of them before the first.
struct Queue {
    all_at_once: bool,
    waiting: RefCell<VecDeque<Job>>,
    /// Whether one has begun since the last step.
    began: Cell<bool>,
    names: Cell<u64>,
    /// Stopped once so many events have come.
    stop: Option<(u64, usize)>,
    /// In the order in which they came.
    events: RefCell<Vec<(u64, Event)>>,
    /// Texts that were on their way when a job began.
    texts: RefCell<Vec<usize>>,
}

impl Queue {
    fn new(jobs: &[Job]) -> Queue {
        Queue {
            all_at_once: false,
            waiting: RefCell::new(jobs.iter().cloned().collect()),
            began: Cell::new(false),
            names: Cell::new(0),
            stop: None,
            events: RefCell::default(),
            texts: RefCell::default(),
        }
    }

    fn of(&self, job: u64) -> Vec<Event> {
        let events = self.events.borrow();
        events.iter().filter(|(name, _)| *name == job).map(|(_, event)| event.clone()).collect()
    }

    /// Where in the order of events a job's first and last are.
    fn span(&self, job: u64) -> (usize, usize) {
        let events = self.events.borrow();
        let first = events.iter().position(|(name, _)| *name == job).unwrap();
        (first, events.iter().rposition(|(name, _)| *name == job).unwrap())
    }
}

impl Jobs for Queue {
    fn next(&self, texts: usize) -> Option<(u64, Job)> {
        if self.began.replace(true) && texts > 0 && !self.all_at_once {
            return None;
        }
        let job = self.waiting.borrow_mut().pop_front()?;
        self.texts.borrow_mut().push(texts);
        self.names.set(self.names.get() + 1);
        Some((self.names.get() - 1, job))
    }

    fn stop(&self, job: u64) -> Option<FailureKind> {
        self.began.set(false);
        self.stop
            .filter(|(name, after)| *name == job && self.of(job).len() >= *after)
            .map(|_| FailureKind::Stopped)
    }

    fn emit(&self, job: u64, event: Event) {
        self.events.borrow_mut().push((job, event));
    }
}

/// What a job says when nothing runs beside it.
fn alone(model: &NodeModel, job: &Job) -> Vec<Event> {
    let mut events = Vec::new();
    let mut running = model.start(job.clone());
    while running.step(&SingleThread, &mut |event| events.push(event)) {}
    events
}

#[track_caller]
fn check_as_alone(queue: &Queue, model: &NodeModel, jobs: &[Job]) {
    for (name, job) in (0..).zip(jobs) {
        assert_eq!(queue.of(name), alone(model, job), "job {name}");
    }
}

/// Prompts of some tokens and of more than a step reads, one and several texts, short and long ones.
fn jobs() -> Vec<Job> {
    let long = "The old house by the sea had been empty for years, and nobody knew why. ".repeat(7);
    vec![
        write("I have an idea!", 1, 1, 40),
        write(&long, 2, 1, 12),
        write("Once upon a time", 3, 3, 20),
        write("The", 4, 1, 1),
        write(&long[20..], 5, 2, 9),
        write("\"No,\" she said", 6, 1, 30),
    ]
}

#[test]
fn a_text_comes_out_as_alone_whatever_runs_beside_it() {
    let model = demo("writer", Dtype::Q8);
    let jobs = jobs();
    let queue = Queue { all_at_once: true, ..Queue::new(&jobs) };
    model.work(&queue, &SingleThread);
    check_as_alone(&queue, &model, &jobs);
    let queue = Queue::new(&jobs);
    model.work(&queue, &SingleThread);
    check_as_alone(&queue, &model, &jobs);
    assert_eq!(queue.texts.borrow()[..3], [0, 1, 2], "the first jobs run side by side");
    let (first, second) = (queue.span(0), queue.span(1));
    assert!(first.0 < second.0 && second.1 < first.1, "a short one does not wait for the end of a long one");
}

#[test]
fn a_score_is_the_same_whatever_is_scored_beside_it() {
    let model = demo("critic", Dtype::Q8);
    let long = "a film that is not as bad as it could have been ".repeat(9);
    let jobs: Vec<Job> =
        ["Wonderful.", "I did not like it at all", &long, "So-so", "never again", "good"].map(score).into();
    for all_at_once in [false, true] {
        let queue = Queue { all_at_once, ..Queue::new(&jobs) };
        model.work(&queue, &SingleThread);
        check_as_alone(&queue, &model, &jobs);
    }
}

#[test]
fn one_that_fails_or_is_stopped_leaves_the_others_whole() {
    let model = demo("writer", Dtype::Q8);
    let mut jobs = jobs();
    let Work::Generate { parameters, .. } = &mut jobs[2].work else { unreachable!() };
    parameters.max_length = Some(1);
    parameters.max_new_tokens = None;
    jobs.insert(4, score("a text for a critic"));
    let queue = Queue { stop: Some((0, 8)), ..Queue::new(&jobs) };
    model.work(&queue, &SingleThread);
    for (name, job) in (0..).zip(&jobs) {
        let (events, whole) = (queue.of(name), alone(&model, job));
        match name {
            0 => {
                let [shared @ .., last] = events.as_slice() else { panic!("no events") };
                assert_eq!(shared, &whole[..8]);
                let Event::Done { new_tokens, finish_reason, .. } = last else { panic!("{last:?}") };
                assert_eq!((*new_tokens, *finish_reason), (7, FinishReason::Stopped));
            }
            _ => assert_eq!(events, whole, "job {name}"),
        }
    }
    let kinds = |name| match queue.of(name).as_slice() {
        [Event::Failed { kind, .. }, ..] => *kind,
        other => panic!("{other:?}"),
    };
    assert_eq!((kinds(2), kinds(4)), (FailureKind::Invalid, FailureKind::Internal));
}

#[test]
fn in_f32_jobs_are_done_one_after_the_other() {
    let model = demo("writer", Dtype::F32);
    let jobs = jobs();
    let queue = Queue::new(&jobs);
    model.work(&queue, &SingleThread);
    check_as_alone(&queue, &model, &jobs);
    assert!(queue.texts.borrow().iter().all(|texts| *texts == 0));
}
