//! The only generation loop, one token a step.
//!
//! [`Generation`] is the loop without a model: it says which ids to run, takes back logits, and answers with
//! tokens. [`Decoding`] drives it on the CPU; a device that answers later drives the same [`Generation`].

use crate::{
    error::{Error, Result},
    kernels::Pool,
    logits::{Logits, Row},
    model::gpt2::{Cache, Gpt2},
    protocol::{Alternative, FinishReason, Parameters, Settings, Token},
    sampler::Sampler,
    tokenizer::{TextStream, Tokenizer},
};

/// Most tokens of a prompt that a step reads, so that a host that stops a long prompt need not wait for all of it. At
/// 8 bits the numbers are the same to the bit however a prompt is cut.
const PREFILL: usize = 64;

/// A generator ready to run: model, tokenizer, and what the checkpoint says about decoding.
#[derive(Debug)]
pub struct Generator {
    model: Gpt2,
    tokenizer: Option<Tokenizer>,
    defaults: Parameters,
    end_of_text: Vec<u32>,
}

/// What is to be continued.
#[derive(Clone, Copy, Debug)]
pub enum Prompt<'a> {
    /// A text; needs a tokenizer.
    Text(&'a str),
    /// Token ids.
    Ids(&'a [u32]),
}

impl Generator {
    /// Puts a generator together.
    ///
    /// `defaults` lie under a request's parameters; a continuation ends at any id of `end_of_text`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer knows more ids than the model has embeddings.
    pub fn new(
        model: Gpt2,
        tokenizer: Option<Tokenizer>,
        defaults: Parameters,
        end_of_text: Vec<u32>,
    ) -> Result<Generator> {
        if let Some(tokenizer) = &tokenizer {
            tokenizer.check_fits(model.config().vocab_size)?;
        }
        Ok(Generator { model, tokenizer, defaults, end_of_text })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Gpt2 {
        &self.model
    }

    /// The model's own parameters, which lie under a request's.
    #[must_use]
    pub fn defaults(&self) -> &Parameters {
        &self.defaults
    }

    /// The tokenizer, if the model came with one.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// The ids of `prompt`.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] for a text without a tokenizer, [`Error::EmptyPrompt`] where an empty prompt has no
    /// end-of-text id to begin from.
    pub fn prompt_ids(&self, prompt: Prompt<'_>) -> Result<Vec<u32>> {
        let mut ids = match prompt {
            Prompt::Ids(ids) => ids.to_vec(),
            Prompt::Text(text) => self.tokenizer.as_ref().ok_or(Error::NoTokenizer)?.encode(text, true)?,
        };
        if ids.is_empty() && matches!(prompt, Prompt::Text(_)) {
            // GPT-2 was trained on texts that begin after the end-of-text id: so does a text from nothing.
            ids.extend(self.end_of_text.first());
        }
        Ok(ids)
    }

    /// Begins to continue `prompt`; sequences are numbered from `first_sequence`, which also picks their draws.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::PromptTooLong`], [`Error::TokenOutOfRange`], [`Error::Parameter`],
    /// [`Error::NoTokenizer`].
    pub fn start(
        &self,
        prompt: Prompt<'_>,
        parameters: &Parameters,
        first_sequence: usize,
    ) -> Result<Decoding<'_>> {
        let ids = self.prompt_ids(prompt)?;
        let settings = parameters.or(&self.defaults).settings()?;
        let vocab_size = self.model.config().vocab_size;
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange { id, vocab_size });
        }
        if !settings.stop.is_empty() && self.tokenizer.is_none() {
            return Err(Error::NoTokenizer);
        }
        let context = self.model.config().n_positions;
        let generation = Generation::new(ids, settings, context, self.end_of_text.clone(), first_sequence)?;
        let caches = generation.sequences.iter().map(|_| None).collect();
        Ok(Decoding { generator: self, generation, caches })
    }

    /// [`Decoding::step`] for several decodings of this generator, with one run of the model for all of them: an answer
    /// each. Their prompts share the tokens that a step reads; the later ones wait.
    ///
    /// # Errors
    /// Those of the model; a decoding's own, of the sampler, are its answer.
    pub fn step(
        &self,
        decodings: &mut [&mut Decoding<'_>],
        pool: &dyn Pool,
    ) -> Result<Vec<Result<Option<Vec<Produced>>>>> {
        let (mut batch, mut read) = (Vec::new(), Vec::with_capacity(decodings.len()));
        let mut room = PREFILL;
        for decoding in decodings.iter_mut() {
            read.push(decoding.give(room, &mut batch));
            room -= read.last().expect("just added");
        }
        let mut logits = self.run(&mut batch, pool)?;
        let mut rows = logits.rows_mut();
        Ok(decodings.iter_mut().zip(read).map(|(decoding, read)| decoding.take(read, &mut rows)).collect())
    }

    /// The logits of a batch, which may be empty.
    fn run(&self, batch: &mut [(&[u32], &mut Cache)], pool: &dyn Pool) -> Result<Logits> {
        match batch.is_empty() {
            true => Ok(Logits::new(Vec::new(), 0)),
            false => self.model.forward(batch, pool),
        }
    }
}

/// A generation on its way on the CPU.
#[derive(Debug)]
pub struct Decoding<'m> {
    generator: &'m Generator,
    generation: Generation,
    /// A sequence's, while it runs. That of the first one reads the prompt for all.
    caches: Vec<Option<Cache>>,
}

impl Decoding<'_> {
    /// The loop's state: ids and texts so far.
    #[must_use]
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Positions that are kept of all sequences that still run: what the memory for it grows with.
    #[must_use]
    pub fn cached_positions(&self) -> usize {
        self.caches.iter().flatten().map(Cache::positions).sum()
    }

    /// Ends the sequences that are still running, as [`Generation::stop`] does.
    pub fn stop(&mut self) -> Vec<(usize, String)> {
        let held = self.generation.stop();
        self.drop_ended();
        held
    }

    /// Runs the model once, for all sequences together; the tokens are those that became known, in order of their
    /// sequences: none while a long prompt is being read. `None` when all sequences have ended.
    ///
    /// # Errors
    /// Those of the model and the sampler.
    pub fn step(&mut self, pool: &dyn Pool) -> Result<Option<Vec<Produced>>> {
        let (generator, mut batch) = (self.generator, Vec::new());
        let read = self.give(PREFILL, &mut batch);
        let mut logits = generator.run(&mut batch, pool)?;
        self.take(read, &mut logits.rows_mut())
    }

    /// Adds to `batch` what the model shall run, no more than `room` ids of the prompt, and says how many these are.
    fn give<'b>(&'b mut self, room: usize, batch: &mut Vec<(&'b [u32], &'b mut Cache)>) -> usize {
        let Decoding { generator, generation, caches } = self;
        match generation.next(room) {
            Step::Over => 0,
            Step::Prefill { ids, .. } => {
                if !ids.is_empty() {
                    let new = || Cache::new(generator.model.config(), generation.positions());
                    batch.push((ids, caches[0].get_or_insert_with(new)));
                }
                ids.len()
            }
            Step::Decode => {
                let all = generation.sequences.iter().zip(caches);
                batch.extend(all.filter_map(|(sequence, cache)| Some((sequence.last_id(), cache.as_mut()?))));
                0
            }
        }
    }

    /// Takes the logits that a run of the model gave for it, which read so many ids of its prompt.
    fn take<'l>(
        &mut self,
        read: usize,
        logits: &mut impl Iterator<Item = Row<'l>>,
    ) -> Result<Option<Vec<Produced>>> {
        let Decoding { generator, generation, caches } = self;
        let running: Vec<usize> = match generation.next(0) {
            Step::Over => return Ok(None),
            Step::Decode => {
                let all = generation.sequences.iter().enumerate();
                all.filter(|(_, sequence)| sequence.is_running()).map(|(index, _)| index).collect()
            }
            Step::Prefill { .. } if read == 0 => Vec::new(),
            Step::Prefill { .. } => {
                let mut row = logits.next().expect("a piece of a prompt has logits");
                generation.prefilled += read;
                if generation.prefilled < generation.prompt.len() {
                    return Ok(Some(Vec::new()));
                }
                let accept = |index| generation.accept(index, &mut row, generator.tokenizer.as_ref());
                let produced = (0..caches.len()).map(accept).collect::<Result<_>>().map(Some);
                // The first sequence has the cache itself, with the room that it has; those that go on take copies.
                let (first, others) = caches.split_first_mut().expect("there is a sequence");
                for (cache, sequence) in others.iter_mut().zip(&generation.sequences[1..]) {
                    if sequence.is_running() {
                        cache.clone_from(first);
                    }
                }
                self.drop_ended();
                return produced;
            }
        };
        // All of them, whatever becomes of the first: the next rows are another decoding's.
        let rows: Vec<_> = logits.take(running.len()).collect();
        let accept = |(index, mut row)| generation.accept(index, &mut row, generator.tokenizer.as_ref());
        let produced = running.into_iter().zip(rows).map(accept).collect::<Result<_>>().map(Some);
        self.drop_ended();
        produced
    }

    /// Gives back the caches of the sequences that have ended.
    fn drop_ended(&mut self) {
        for (cache, sequence) in self.caches.iter_mut().zip(&self.generation.sequences) {
            if !sequence.is_running() {
                *cache = None;
            }
        }
    }
}

/// The generation loop without a model.
#[derive(Debug)]
pub struct Generation {
    prompt: Vec<u32>,
    /// Tokens of the prompt that the model has read.
    prefilled: usize,
    /// Most tokens of prompt and continuation.
    limit: usize,
    limit_reason: FinishReason,
    end_of_text: Vec<u32>,
    settings: Settings,
    sequences: Vec<Sequence>,
}

/// One continuation.
#[derive(Debug)]
pub struct Sequence {
    number: usize,
    /// Prompt and continuation.
    ids: Vec<u32>,
    prompt_tokens: usize,
    sampler: Sampler,
    stream: TextStream,
    /// Text that was announced.
    text: String,
    /// Text that may be the beginning of a stop string, and so was not announced yet.
    held: String,
    finish_reason: Option<FinishReason>,
}

/// What the loop wants next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Run a piece of the prompt; the logits after its last piece serve every sequence.
    Prefill {
        /// The piece's ids; none where none may be read now.
        ids: &'a [u32],
        /// Whether it is the last one, whose logits are wanted.
        is_last: bool,
    },
    /// Run [`Sequence::last_id`] of each that [`Sequence::is_running`].
    Decode,
    /// All sequences have ended.
    Over,
}

/// A token and whether it was its sequence's last.
#[derive(Clone, Debug, PartialEq)]
pub struct Produced {
    /// The sequence's number.
    pub sequence: usize,
    /// The token.
    pub token: Token,
    /// Why the sequence ended with it, if it did.
    pub finish_reason: Option<FinishReason>,
}

impl Sequence {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// The new ids, with the end-of-text id if it came.
    #[must_use]
    pub fn new_ids(&self) -> &[u32] {
        &self.ids[self.prompt_tokens..]
    }

    /// The new text that is certain.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its last id, of the prompt at first: what the model runs next.
    #[must_use]
    pub fn last_id(&self) -> &[u32] {
        &self.ids[self.ids.len() - 1..]
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.finish_reason.is_none()
    }

    /// Why it ended, once it has.
    #[must_use]
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish_reason
    }

    /// Adds certain text; answers with what can be announced, and whether a stop string came.
    fn announce(&mut self, piece: &str, last: bool, stop: &[String]) -> (String, bool) {
        self.held.push_str(piece);
        let cut = stop.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        let certain = match cut {
            Some(at) => at,
            None if last => self.held.len(),
            None => self.held.len() - longest_beginning(&self.held, stop),
        };
        let rest = self.held.split_off(certain);
        let announced = std::mem::replace(&mut self.held, rest);
        self.text.push_str(&announced);
        (announced, cut.is_some())
    }
}

/// Bytes at the end of `text` that may grow into a stop string.
fn longest_beginning(text: &str, stop: &[String]) -> usize {
    let overlap = |stop: &String| {
        let longest = stop.len().min(text.len());
        (1..=longest).rev().find(|&bytes| text.as_bytes().ends_with(&stop.as_bytes()[..bytes]))
    };
    stop.iter().filter_map(overlap).max().unwrap_or(0)
}

impl Generation {
    /// Begins the loop on `prompt` for a model of `context` positions.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`]; [`Error::PromptTooLong`] if the context or `max_length` leaves no room.
    pub fn new(
        prompt: Vec<u32>,
        settings: Settings,
        context: usize,
        end_of_text: Vec<u32>,
        first_sequence: usize,
    ) -> Result<Generation> {
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let asked = match settings.max_new_tokens {
            Some(new) => prompt.len().saturating_add(new),
            None => settings.max_length.unwrap_or(context),
        };
        let (limit, limit_reason, limit_name) = match asked > context {
            true => (context, FinishReason::Context, "the model's context"),
            false => (asked, FinishReason::Length, "`max_length`"),
        };
        if prompt.len() >= limit {
            return Err(Error::PromptTooLong { prompt: prompt.len(), limit_name, limit });
        }
        let sequences = (0..settings.num_return_sequences)
            .map(|index| Sequence {
                number: first_sequence + index,
                ids: prompt.clone(),
                prompt_tokens: prompt.len(),
                sampler: Sampler::new(&settings, first_sequence + index),
                stream: TextStream::default(),
                text: String::new(),
                held: String::new(),
                finish_reason: None,
            })
            .collect();
        Ok(Generation { prompt, prefilled: 0, limit, limit_reason, end_of_text, settings, sequences })
    }

    /// The continuations.
    #[must_use]
    pub fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    /// Those that have not ended.
    pub fn running(&self) -> impl Iterator<Item = &Sequence> {
        self.sequences.iter().filter(|sequence| sequence.is_running())
    }

    /// Tokens in the prompt.
    #[must_use]
    pub fn prompt_tokens(&self) -> usize {
        self.prompt.len()
    }

    /// Most positions that a sequence can take in a cache.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.limit
    }

    /// Which ids to run now; of a prompt no more than `most`.
    #[must_use]
    pub fn next(&self, most: usize) -> Step<'_> {
        if self.sequences.iter().all(|sequence| sequence.new_ids().is_empty()) {
            let end = self.prompt.len().min(self.prefilled + most);
            return Step::Prefill {
                ids: &self.prompt[self.prefilled..end],
                is_last: end == self.prompt.len(),
            };
        }
        if self.running().next().is_some() { Step::Decode } else { Step::Over }
    }

    /// Takes the logits (`vocab_size`) that follow the last id of the sequence at `index`, and draws its next token.
    /// The logits are changed on the way and given back as they were.
    ///
    /// # Errors
    /// [`Error::BrokenLogits`], [`Error::Tokenizer`].
    pub fn accept(
        &mut self,
        index: usize,
        logits: &mut Row<'_>,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<Produced> {
        let sequence = &mut self.sequences[index];
        let drawn = sequence.sampler.sample(logits, &sequence.ids)?;
        sequence.ids.push(drawn.id);
        let ended = self.end_of_text.contains(&drawn.id);
        let mut finish_reason = match ended {
            true => Some(FinishReason::EndOfText),
            false if sequence.ids.len() >= self.limit => Some(self.limit_reason),
            false => None,
        };
        let mut text = String::new();
        if let Some(tokenizer) = tokenizer {
            let mut piece = if ended { String::new() } else { sequence.stream.push(tokenizer, drawn.id)? };
            if finish_reason.is_some() {
                piece += &std::mem::take(&mut sequence.stream).finish();
            }
            let (announced, stopped) =
                sequence.announce(&piece, finish_reason.is_some(), &self.settings.stop);
            text = announced;
            if stopped {
                finish_reason = Some(FinishReason::StopString);
            }
        }
        sequence.finish_reason = finish_reason;
        let alternatives = drawn
            .alternatives
            .iter()
            .map(|&(id, log_prob)| {
                let text = tokenizer.map(|tokenizer| tokenizer.token_text(id)).unwrap_or_default();
                Alternative { id, text, log_prob }
            })
            .collect();
        let token = Token { id: drawn.id, text, log_prob: drawn.log_prob, alternatives };
        Ok(Produced { sequence: sequence.number, token, finish_reason })
    }

    /// Ends the sequences that are still running; their held text is certain now. Answers with what was held back,
    /// a sequence and its text each.
    pub fn stop(&mut self) -> Vec<(usize, String)> {
        let running = self.sequences.iter_mut().filter(|sequence| sequence.is_running());
        running
            .map(|sequence| {
                sequence.finish_reason = Some(FinishReason::Stopped);
                let piece = std::mem::take(&mut sequence.stream).finish();
                (sequence.number, sequence.announce(&piece, true, &self.settings.stop).0)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn generation(prompt: usize, context: usize, parameters: Parameters) -> Result<Generation> {
        Generation::new(vec![1; prompt], parameters.settings().unwrap(), context, vec![0], 0)
    }

    fn greedy(max_new_tokens: usize) -> Parameters {
        Parameters { max_new_tokens: Some(max_new_tokens), do_sample: Some(false), ..Parameters::default() }
    }

    /// Gives the sequence at `index` logits in which `id` is the likeliest of four.
    fn accept(generation: &mut Generation, index: usize, id: usize) -> Option<FinishReason> {
        let logits = (0..4).map(|other| if other == id { 1.0 } else { 0.0 }).collect();
        let mut logits = Logits::new(logits, 4);
        generation.accept(index, &mut logits.rows_mut().next().unwrap(), None).unwrap().finish_reason
    }

    #[test]
    fn the_loop_asks_for_the_prompt_then_for_one_token_a_step() {
        let mut loop_ = generation(2, 10, greedy(2)).unwrap();
        assert!(matches!(loop_.next(PREFILL), Step::Prefill { ids: [1, 1], is_last: true }));
        assert_eq!(accept(&mut loop_, 0, 3), None);
        assert!(matches!(loop_.next(PREFILL), Step::Decode));
        assert_eq!(loop_.sequences()[0].last_id(), [3]);
        assert_eq!(accept(&mut loop_, 0, 2), Some(FinishReason::Length));
        assert!(matches!(loop_.next(PREFILL), Step::Over));
        assert_eq!(loop_.sequences()[0].new_ids(), [3, 2]);
    }

    #[test]
    fn a_long_prompt_is_read_in_pieces_of_which_only_the_last_gives_a_token() {
        let mut loop_ = generation(PREFILL + 1, 100, greedy(2)).unwrap();
        assert!(matches!(loop_.next(PREFILL), Step::Prefill { ids, is_last: false } if ids.len() == PREFILL));
        loop_.prefilled += PREFILL;
        assert!(matches!(loop_.next(PREFILL), Step::Prefill { ids: [1], is_last: true }));
    }

    #[test]
    fn the_end_of_text_id_ends_one_sequence_and_leaves_the_others() {
        let parameters = Parameters { num_return_sequences: Some(2), ..greedy(5) };
        let mut loop_ = generation(1, 10, parameters).unwrap();
        assert_eq!(accept(&mut loop_, 0, 0), Some(FinishReason::EndOfText));
        assert_eq!(accept(&mut loop_, 1, 2), None);
        assert!(matches!(loop_.next(PREFILL), Step::Decode));
        assert_eq!(loop_.sequences().iter().map(Sequence::is_running).collect::<Vec<_>>(), [false, true]);
        assert_eq!(loop_.sequences()[1].last_id(), [2]);
    }

    #[test]
    fn a_prompt_that_leaves_no_room_names_both_lengths() {
        let message =
            |prompt, context, parameters| generation(prompt, context, parameters).unwrap_err().to_string();
        assert_eq!(
            message(10, 10, greedy(1)),
            "the prompt has 10 tokens, but the model's context is 10: there is no room for a new one"
        );
        let short = Parameters { max_length: Some(5), ..Parameters::default() };
        assert_eq!(
            message(6, 10, short),
            "the prompt has 6 tokens, but `max_length` is 5: there is no room for a new one"
        );
        assert!(matches!(generation(0, 10, greedy(1)), Err(Error::EmptyPrompt)));
    }

    #[test]
    fn a_full_context_is_told_from_a_reached_length() {
        let mut loop_ = generation(2, 3, greedy(5)).unwrap();
        assert_eq!(accept(&mut loop_, 0, 3), Some(FinishReason::Context));
    }

    #[test]
    fn a_possible_beginning_of_a_stop_string_is_held_back() {
        let stop = ["END".to_string(), "é!".to_string()];
        for (text, held) in [("the E", 1), ("the EN", 2), ("the ENx", 0), ("é", 2), ("", 0)] {
            assert_eq!(longest_beginning(text, &stop), held, "{text}");
        }
    }
}
