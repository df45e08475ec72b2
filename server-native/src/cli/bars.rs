//! Progress bars for files that are fetched: bytes and time left, on standard error, where that is a terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The bars of a command, one for each model that is being fetched.
#[derive(Clone, Debug)]
pub(super) struct Bars(MultiProgress);

impl Bars {
    pub(super) fn new() -> Bars {
        Bars(MultiProgress::new())
    }

    /// A progress that draws the files of `model` on one line, which vanishes with it.
    pub(super) fn fetching(&self, model: &str) -> impl FnMut(&str, u64, Option<u64>) + use<> {
        let (bars, model) = (self.0.clone(), model.to_string());
        let mut line: Option<Line> = None;
        move |file, bytes, total| {
            let is_new = line.as_ref().is_none_or(|line| line.file != file);
            if is_new {
                line = Some(Line { file: file.into(), bar: bars.add(bar(&model, file, total)) });
            }
            if let Some(line) = &line {
                line.bar.set_position(bytes);
            }
        }
    }
}

struct Line {
    file: String,
    bar: ProgressBar,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn bar(model: &str, file: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{msg} {bar:24} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left",
        ),
        None => (ProgressBar::no_length(), "{msg} {decimal_bytes}, {decimal_bytes_per_sec}"),
    };
    let style = ProgressStyle::with_template(template).expect("the template is valid: it is above");
    bar.with_style(style).with_message(format!("{model}: {file}"))
}
