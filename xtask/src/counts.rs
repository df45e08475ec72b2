//! How many tests ran, read from what the test runners print.
//!
//! Three forms are known: the summary of cargo-nextest, the `test result:` line of Rust's own harness, which
//! wasm-bindgen's runner prints as well, and the lines at the end of Node's runner, one for each way to end.

use std::fmt;
use std::ops::AddAssign;

/// Tests by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    /// Every other way for a test that was started to end: failed, timed out, crashed.
    pub(crate) failed: usize,
    /// Ignored, or left out by a filter of the runner's own.
    pub(crate) skipped: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// The runners' own summary lines in `output` that count at least one test, with their sum.
///
/// nextest runs each test in a harness of its own and shows what a failing one printed, that harness's result among it:
/// where nextest has summed up, nobody else is counted.
pub(crate) fn read(output: &str) -> (Counts, Vec<String>) {
    let lines: Vec<String> = output.lines().map(|line| without_colours(line).trim().to_owned()).collect();
    let counted = |count: fn(&str) -> Option<Counts>| -> Vec<(Counts, String)> {
        let pairs = lines.iter().filter_map(|line| Some((count(line)?, line.clone())));
        pairs.filter(|(counts, _)| *counts != Counts::default()).collect()
    };
    let mut found = counted(nextest_summary);
    if found.is_empty() {
        found = counted(|line| harness_result(line).or_else(|| node_line(line)));
    }
    let mut sum = Counts::default();
    found.iter().for_each(|(counts, _)| sum += *counts);
    (sum, found.into_iter().map(|(_, line)| line).collect())
}

/// `Summary [   0.5s] 12 tests run: 11 passed (1 slow, 2 leaky), 1 timed out, 3 skipped`
fn nextest_summary(line: &str) -> Option<Counts> {
    let (_, ends) = line.strip_prefix("Summary [")?.split_once(" run:")?;
    let mut counts = Counts::default();
    for (number, ending) in numbered(&without_parentheses(ends), ',') {
        match ending {
            "passed" => counts.passed += number,
            "skipped" => counts.skipped += number,
            _ => counts.failed += number,
        }
    }
    Some(counts)
}

/// `test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.02s`
///
/// Filtered tests are not counted: nobody meant them to run.
fn harness_result(line: &str) -> Option<Counts> {
    let (_, ends) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for (number, ending) in numbered(ends, ';') {
        match ending {
            "passed" => counts.passed += number,
            "failed" => counts.failed += number,
            "ignored" => counts.skipped += number,
            _ => {}
        }
    }
    Some(counts)
}

/// `# pass 25` (or `ℹ pass 25` on a terminal), and likewise `fail`, `cancelled`, `skipped`, `todo`.
fn node_line(line: &str) -> Option<Counts> {
    let line = line.strip_prefix("# ").or_else(|| line.strip_prefix("ℹ "))?;
    let (ending, number) = line.split_once(' ')?;
    let number = number.parse().ok()?;
    let mut counts = Counts::default();
    match ending {
        "pass" => counts.passed = number,
        "fail" | "cancelled" => counts.failed = number,
        "skipped" | "todo" => counts.skipped = number,
        _ => return None,
    }
    Some(counts)
}

/// The pairs of `3 passed; 1 timed out; finished`, leaving out what does not start with a number.
fn numbered(list: &str, separator: char) -> impl Iterator<Item = (usize, &str)> {
    list.split(separator).filter_map(|item| {
        let (number, ending) = item.trim().split_once(' ')?;
        Some((number.parse().ok()?, ending))
    })
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0;
    text.chars()
        .filter(|&c| {
            depth += i32::from(c == '(');
            let kept = depth == 0;
            depth -= i32::from(c == ')');
            kept
        })
        .map(|c| if c == '\u{a0}' { ' ' } else { c })
        .collect::<String>()
        .replace(" ,", ",")
        .trim_end()
        .to_owned()
}

/// Drops the escape sequences of a terminal's colours: `ESC [ ... m`.
fn without_colours(line: &str) -> String {
    let mut kept = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        kept.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(output: &str, passed: usize, failed: usize, skipped: usize) {
        assert_eq!(read(output).0, Counts { passed, failed, skipped });
    }

    #[test]
    fn nextest_all_passed() {
        check("     Summary [   0.008s] 4 tests run: 4 passed, 0 skipped\n", 4, 0, 0);
    }

    #[test]
    fn nextest_one_test() {
        check("     Summary [   0.008s] 1 test run: 1 passed, 2 skipped\n", 1, 0, 2);
    }

    #[test]
    fn nextest_every_bad_end_is_a_failure() {
        let line = "Summary [  10.0s] 14 tests run: 9 passed (1 slow, 2 leaky), 2 failed, 1 exec failed, 2 timed out, 3 skipped";
        check(line, 9, 5, 3);
    }

    #[test]
    fn nextest_in_colour() {
        let line = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.008s] \u{1b}[1m4\u{1b}[0m tests run: \u{1b}[1m4\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, \u{1b}[1m0\u{1b}[0m \u{1b}[33;1mskipped\u{1b}[0m";
        check(line, 4, 0, 0);
    }

    #[test]
    fn nextest_stopped_early() {
        check("Summary [ 1.0s] 5/12 tests run: 4 passed, 1 failed, 0 skipped", 4, 1, 0);
    }

    #[test]
    fn nextest_shows_the_harness_of_a_failed_test_which_is_not_counted_again() {
        let output = "
        FAIL [   0.004s] (2/3) xtask counts::tests::x
  stdout ───

    running 1 test
    test counts::tests::x ... FAILED

    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 50 filtered out; finished in 0.00s

     Summary [   0.008s] 3 tests run: 2 passed, 1 failed, 4 skipped
        FAIL [   0.004s] (2/3) xtask counts::tests::x
error: test run failed";
        check(output, 2, 1, 4);
        assert_eq!(read(output).1.len(), 1);
    }

    #[test]
    fn harness_results_are_summed() {
        let output = "
running 4 tests
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.02s
test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s
";
        check(output, 5, 1, 1);
    }

    #[test]
    fn wasm_bindgen_result() {
        check("test result: ok. 2 passed; 0 failed; 1 ignored; 0 filtered out; finished in 0.33s", 2, 0, 1);
    }

    #[test]
    fn only_lines_that_count_something_are_kept() {
        let output =
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.0s
a test prints: test result: ok
   \u{1b}[1mSummary\u{1b}[0m [1s] 2 tests run: 2 passed, 0 skipped";
        assert_eq!(read(output).1, ["Summary [1s] 2 tests run: 2 passed, 0 skipped"]);
    }

    #[test]
    fn the_last_line_is_plain() {
        let mut counts = Counts { passed: 2, failed: 0, skipped: 0 };
        assert_eq!(counts.to_string(), "2 passed, 0 failed");
        counts += Counts { passed: 1, failed: 1, skipped: 4 };
        assert_eq!(counts.to_string(), "3 passed, 1 failed, 4 skipped");
    }

    #[test]
    fn nodes_runner_is_understood() {
        let (counts, _) = read(
            "ok 1 - a\n# tests 4\n# suites 0\n# pass 2\n# fail 1\n# cancelled 0\n# skipped 1\n# todo 0\n",
        );
        assert_eq!(counts, Counts { passed: 2, failed: 1, skipped: 1 });
        assert_eq!(read("ℹ pass 3\nℹ fail 0").0, Counts { passed: 3, failed: 0, skipped: 0 });
    }
}
