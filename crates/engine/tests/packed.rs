//! The packed form: a model that was kept while its source streamed by is the same model, wherever its load broke off,
//! and bytes that changed since never become one.

#![expect(clippy::unwrap_used, reason = "a test may panic, and its helpers with it")]

mod support;

use inkling_engine::{
    Result,
    checkpoint::{
        Dtype, LoadOptions, Loaded, Loader,
        packed::{Checkpoint, Content, Head, Index, Writer},
    },
    kernels::SingleThread,
    model::gpt2::Cache,
};
use proptest::prelude::*;
use serde_json::Value;
use std::path::Path;
use support::{Files, cases, checkpoint};

/// What a host keeps of a model.
#[derive(Clone, Default)]
struct Disk {
    index: String,
    data: Vec<u8>,
}

/// The smallest host: loads `files` and keeps what it loads, going on from what `disk` has. `budget` is how many bytes of
/// the source come before the connection breaks.
fn load(files: &Files, dtype: Dtype, disk: &mut Disk, mut budget: usize) -> Result<Option<Loaded>> {
    let mut loader = Loader::new(files.config.as_deref(), LoadOptions { dtype, ..LoadOptions::default() })?;
    let (mut writer, mut at) = match Index::parse(disk.index.as_bytes(), dtype, disk.data.len() as u64) {
        Ok(index) => {
            disk.index.truncate(index.index_bytes as usize);
            disk.data.truncate(index.data_bytes as usize);
            (Writer::resume(&index), restore(&mut loader, &index, &disk.data)?)
        }
        Err(_) => {
            let (writer, head) = Writer::begin(Head::new(dtype, Value::Null));
            *disk = Disk { index: head, data: Vec::new() };
            (writer, None)
        }
    };
    let begun = at.as_ref().map(|at| at.file.clone());
    for (name, bytes) in
        files.weights.iter().skip_while(|(name, _)| begun.as_ref().is_some_and(|b| b != name))
    {
        let mut read = match at.take() {
            Some(checkpoint) => checkpoint.at as usize,
            None => {
                loader.begin_file(name, Some(bytes.len() as u64))?;
                0
            }
        };
        while read < bytes.len() {
            let until = loader.until_tensor_end().map_or(usize::MAX, |bytes| bytes as usize);
            let take = until.min(100).min(bytes.len() - read);
            if take > budget {
                return Ok(None);
            }
            budget -= take;
            loader.push(&bytes[read..read + take])?;
            read += take;
            if let Some(header) = loader.take_header() {
                disk.index += &writer.header(name, Some(bytes.len() as u64), &header);
                disk.data.extend(header);
            }
            for tensor in loader.take_finished() {
                tensor.parts.iter().for_each(|part| disk.data.extend_from_slice(part));
                disk.index += &writer.tensor(&tensor);
            }
            if take == until {
                let checkpoint = Checkpoint { file: name.clone(), at: read as u64, state: Value::Null };
                disk.index += &writer.checkpoint(checkpoint);
            }
        }
        loader.end_file()?;
    }
    disk.index += &writer.complete(Value::Null);
    loader.finish().map(Some)
}

/// Puts the pieces back; answers with where to go on.
fn restore(loader: &mut Loader, index: &Index, data: &[u8]) -> Result<Option<Checkpoint>> {
    let mut open = false;
    for piece in &index.pieces {
        let mut bytes = &data[piece.offset as usize..][..piece.size_bytes as usize];
        if let Content::Header { name, file_bytes } = &piece.content {
            piece.check(bytes)?;
            if open {
                loader.skip_to(u64::MAX)?;
                loader.end_file()?;
            }
            open = true;
            loader.begin_file(name, *file_bytes)?;
            loader.restore_header(bytes)?;
        } else if let Some(tensor) = piece.tensor() {
            let mut slot = loader.slot(&tensor)?;
            for part in slot.parts_mut() {
                let (now, later) = bytes.split_at(part.len());
                part.copy_from_slice(now);
                bytes = later;
            }
            loader.restore(slot)?;
        }
    }
    if let Some(checkpoint) = &index.checkpoint {
        loader.skip_to(checkpoint.at)?;
    }
    Ok(index.checkpoint.clone())
}

/// The model of a complete packed form, without its source.
fn unpack(files: &Files, dtype: Dtype, disk: &Disk) -> Result<Loaded> {
    let mut loader = Loader::new(files.config.as_deref(), LoadOptions { dtype, ..LoadOptions::default() })?;
    let index = Index::parse(disk.index.as_bytes(), dtype, disk.data.len() as u64)?;
    restore(&mut loader, &index, &disk.data)?;
    loader.skip_to(u64::MAX)?;
    loader.end_file()?;
    loader.finish()
}

fn logits(model: &Loaded) -> Vec<u32> {
    let ids = [1, 2, 3, 4, 5];
    let logits = match model {
        Loaded::Gpt2(model) => {
            let mut cache = Cache::new(model.config(), 8);
            model.forward(&mut [(&ids, &mut cache)], &SingleThread).unwrap().into_values()
        }
        Loaded::Encoder(model) => model.forward(&[&ids], &SingleThread).unwrap(),
    };
    logits.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn an_unpacked_model_has_the_same_logits() {
    let mut compared = 0;
    for case in cases() {
        for dtype in Dtype::ALL {
            let (files, mut disk) = (checkpoint(&case), Disk::default());
            // One case is there to be refused.
            let Ok(plain) = files.load(dtype) else { continue };
            let whole = load(&files, dtype, &mut disk, usize::MAX).unwrap().unwrap();
            assert_eq!(logits(&whole), logits(&plain), "{case}: while packing");
            let unpacked = unpack(&files, dtype, &disk).unwrap();
            assert_eq!(logits(&unpacked), logits(&whole), "{case} {dtype:?}");
            compared += 1;
        }
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn a_files_own_8_bit_weights_come_back() {
    // The demo writer's file has blocks of Q8_0; 128 divides the width of some matrices, which other files have rotated.
    let files = Files::in_folder(Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/demo/writer-distilled"
    )));
    let mut disk = Disk::default();
    let whole = load(&files, Dtype::Q8, &mut disk, usize::MAX).unwrap().unwrap();
    assert!(disk.index.contains("\"q8\"") && !disk.index.contains("q8_by"), "{}", disk.index);
    assert_eq!(logits(&unpack(&files, Dtype::Q8, &disk).unwrap()), logits(&whole));
}

#[test]
fn a_load_that_breaks_goes_on_where_it_was() {
    for case in ["gpt2-sharded", "gguf-q8_0", "bert-two-labels"] {
        let files = checkpoint(case);
        let expected = logits(&files.load(Dtype::Q8).unwrap());
        let size: usize = files.weights.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut disk = Disk::default();
        let mut loads = 1;
        let model = loop {
            if let Some(model) = load(&files, Dtype::Q8, &mut disk, size / 3).unwrap() {
                break model;
            }
            loads += 1;
            assert!(loads < 20, "{case}: no load gets further than the one before");
        };
        assert!(loads > 2, "{case}: broke off {loads} times");
        assert_eq!(logits(&model), expected, "{case}");
        assert_eq!(logits(&unpack(&files, Dtype::Q8, &disk).unwrap()), expected, "{case}: what was kept");
    }
}

#[test]
fn the_index_of_another_dtype_or_engine_is_refused() {
    let (files, mut disk) = (checkpoint("gpt2-gelu"), Disk::default());
    load(&files, Dtype::Q8, &mut disk, usize::MAX).unwrap();
    let parse = |index: &str, dtype| Index::parse(index.as_bytes(), dtype, disk.data.len() as u64);
    assert!(parse(&disk.index, Dtype::Q8).unwrap().complete.is_some());
    assert!(parse(&disk.index, Dtype::F32).is_err());
    assert!(parse(&disk.index, Dtype::Q4).is_err());
    assert!(parse(&disk.index.replace("\"layout\":4", "\"layout\":3"), Dtype::Q8).is_err());
    assert!(parse("", Dtype::Q8).is_err());
    assert!(parse("{\"head\":", Dtype::Q8).is_err());
}

#[test]
fn small_files_are_believed_before_any_checkpoint() {
    let (mut writer, head) = Writer::begin(Head::new(Dtype::Q8, Value::Null));
    let files = writer.file("config.json", b"{}") + &writer.file("vocab.txt", b"abc");
    let index = format!("{head}{files}{}", writer.header("model.safetensors", None, b"xx"));
    let found = Index::parse(index.as_bytes(), Dtype::Q8, 7).unwrap();
    assert!(found.file("config.json").is_some() && found.file("vocab.txt").is_some());
    assert_eq!((found.pieces.len(), found.data_bytes), (2, 5), "the header waits for a checkpoint");
    assert_eq!(found.index_bytes as usize, head.len() + files.len());
}

/// Whatever the disk lost at its end, what is left is believed up to a checkpoint, and the model comes out right.
#[test]
fn what_a_crash_left_is_cut_to_its_last_checkpoint() {
    let (files, mut disk) = (checkpoint("gpt2-gelu"), Disk::default());
    let expected = logits(&load(&files, Dtype::Q8, &mut disk, usize::MAX).unwrap().unwrap());
    for step in 0..40 {
        let mut index = disk.index.clone();
        index.truncate(disk.index.len() * step / 40);
        let mut data = disk.data.clone();
        data.truncate(disk.data.len() * (40 - step / 2) / 40);
        let mut left = Disk { index, data };
        let model = load(&files, Dtype::Q8, &mut left, usize::MAX).unwrap().unwrap();
        assert_eq!(logits(&model), expected, "step {step}");
    }
}

#[test]
fn a_piece_that_lies_elsewhere_ends_what_is_believed() {
    let (files, mut disk) = (checkpoint("gpt2-gelu"), Disk::default());
    load(&files, Dtype::Q8, &mut disk, usize::MAX).unwrap();
    let size = disk.data.len() as u64;
    let whole = Index::parse(disk.index.as_bytes(), Dtype::Q8, size).unwrap();
    for (piece, lie) in [(3, u64::MAX), (4, size), (5, 0)] {
        let offset = format!("\"offset\":{},", whole.pieces[piece].offset);
        let index = disk.index.replace(&offset, &format!("\"offset\":{lie},"));
        let found = Index::parse(index.as_bytes(), Dtype::Q8, size).unwrap();
        assert!(found.pieces.len() <= piece && found.complete.is_none(), "{piece}");
    }
}

#[test]
fn a_tensor_of_another_size_is_refused_before_its_place_is_made() {
    let (files, mut disk) = (checkpoint("gpt2-gelu"), Disk::default());
    load(&files, Dtype::Q8, &mut disk, usize::MAX).unwrap();
    for (truth, lie) in [
        ("\"storage\":\"q8\"", "\"storage\":\"f32\""),
        ("\"name\":\"h.0.attn.c_attn.weight\"", "\"name\":\"h.7.attn.c_attn.weight\""),
        ("\"shape\":[", "\"shape\":[4294967295,"),
    ] {
        assert!(disk.index.contains(truth), "{truth}");
        let index = disk.index.replace(truth, lie);
        let error = unpack(&files, Dtype::Q8, &Disk { index, ..disk.clone() }).unwrap_err().to_string();
        assert!(error.starts_with("packed model: tensor `"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_byte_never_gives_another_model(place in 0.0..1.0f64, flip in 1..=255u8, in_index: bool) {
        let (files, mut disk) = (checkpoint("gpt2-gelu"), Disk::default());
        let expected = logits(&load(&files, Dtype::Q8, &mut disk, usize::MAX).unwrap().unwrap());
        let mut index = disk.index.clone().into_bytes();
        let bytes = if in_index { &mut index } else { &mut disk.data };
        let at = (bytes.len() as f64 * place) as usize;
        bytes[at] ^= flip;
        disk.index = String::from_utf8_lossy(&index).into_owned();
        if let Ok(model) = unpack(&files, Dtype::Q8, &disk) {
            prop_assert_eq!(logits(&model), expected);
        }
    }
}
