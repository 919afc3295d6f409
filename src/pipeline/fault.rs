//! Faults of a pipeline file: each with code, place, snippet and cure; all of them in one report.

use std::fmt::{self, Write as _};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

/// Bytes `start..end` of one of the texts of a report: the pipeline file (text 0), a `--set` argument, a file of the package.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which text.
    pub text: usize,
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Stable code, such as `pipeline::unknown_key`.
    pub code: &'static str,
    /// File, or `--set`.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Under the caret: what was found and what was expected.
    pub label: String,
    /// One line that fixes it.
    pub help: String,
    place: Place,
}

impl Fault {
    /// Where it stands.
    #[must_use]
    pub(super) fn place(&self) -> Place {
        self.place
    }
}

/// A text that places point into, as it may be shown: secrets are starred out.
#[derive(Clone, PartialEq, Eq)]
struct Text {
    name: String,
    content: String,
}

/// All faults of a file, in the order of the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Faults {
    texts: Vec<Text>,
    list: Vec<Fault>,
}

impl Faults {
    /// No faults yet of a file with this name and content.
    pub(super) fn new(name: String, content: String) -> Self {
        Faults { texts: vec![Text { name, content }], list: Vec::new() }
    }

    /// Adds a text that places may point into; returns its number.
    pub(super) fn add_text(&mut self, name: String, content: String) -> usize {
        self.texts.push(Text { name, content });
        self.texts.len() - 1
    }

    /// Stars out a secret; places keep their meaning.
    pub(super) fn star(&mut self, place: Place) {
        let Some(text) = self.texts.get_mut(place.text) else { return };
        let starred: String = text
            .content
            .char_indices()
            .flat_map(|(at, c)| {
                let hide = (place.start..place.end).contains(&at) && !matches!(c, '\n' | '\r' | '"' | '\'');
                // As many stars as bytes, so that byte places stay true.
                let (shown, times) = if hide { ('*', c.len_utf8()) } else { (c, 1) };
                std::iter::repeat_n(shown, times)
            })
            .collect();
        text.content = starred;
    }

    /// Notes a fault.
    pub(super) fn note(
        &mut self,
        code: &'static str,
        place: Place,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        let (file, line, column) = self.locate(place);
        let fault = Fault { code, file, line, column, message: message.into(), label: label.into(), help: help.into(), place };
        if !self.list.contains(&fault) {
            self.list.push(fault);
        }
    }

    /// Drops faults that only follow from another one.
    pub(super) fn retain(&mut self, keep: impl FnMut(&Fault) -> bool) {
        self.list.retain(keep);
    }

    /// The faults in the order of the texts they stand in.
    #[must_use]
    pub fn list(&self) -> Vec<&Fault> {
        let mut list: Vec<&Fault> = self.list.iter().collect();
        list.sort_by_key(|fault| fault.place);
        list
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The number of faults.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The report: each fault with its snippet, then how many there are. `colours` for a terminal.
    #[must_use]
    pub fn report(&self, colours: bool) -> String {
        let theme = if colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(120).without_syntax_highlighting();
        let mut report = String::new();
        for fault in self.list() {
            let shown = self.texts.get(fault.place.text).map(|text| Shown {
                fault,
                source: NamedSource::new(text.name.clone(), text.content.clone()),
                span: fault.place.start..fault.place.end,
            });
            // Writing to a String cannot fail; should the handler refuse a snippet, the fault is still told in one line.
            let whole = shown.is_some_and(|shown| handler.render_report(&mut report, &shown).is_ok());
            if !whole {
                let _ = writeln!(report, "{} {}:{}:{}: {}", fault.code, fault.file, fault.line, fault.column, fault.message);
            }
            report.push('\n');
        }
        let plural = if self.len() == 1 { "fault" } else { "faults" };
        let _ = write!(report, "{} {plural} in {}", self.len(), self.texts.first().map_or("", |text| text.name.as_str()));
        report
    }

    fn locate(&self, place: Place) -> (String, usize, usize) {
        let Some(text) = self.texts.get(place.text) else { return (String::new(), 1, 1) };
        let before = text.content.get(..place.start).unwrap_or(&text.content);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (text.name.clone(), line, column)
    }
}

impl fmt::Debug for Faults {
    /// The faults, not the texts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

/// A fault as miette shows it.
#[derive(Debug)]
struct Shown<'a> {
    fault: &'a Fault,
    source: NamedSource<String>,
    span: std::ops::Range<usize>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fault.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.fault.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.fault.help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::at(self.span.clone(), self.fault.label.clone());
        Some(Box::new(std::iter::once(label)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_reported_in_the_order_of_the_file_with_line_and_column() {
        let mut faults = Faults::new("p.toml".to_owned(), "a = 1\nbé = 2\n".to_owned());
        faults.note("pipeline::two", Place { text: 0, start: 12, end: 13 }, "second", "here", "cure");
        faults.note("pipeline::one", Place { text: 0, start: 0, end: 1 }, "first", "here", "cure");
        let seen: Vec<_> = faults.list().iter().map(|f| (f.code, f.line, f.column)).collect();
        assert_eq!(seen, [("pipeline::one", 1, 1), ("pipeline::two", 2, 6)]);
        assert!(faults.report(false).ends_with("2 faults in p.toml"));
    }

    #[test]
    fn a_starred_secret_is_not_in_the_report_and_later_places_stay_true() {
        let mut faults = Faults::new("p.toml".to_owned(), "x = \"geheimß\" # y\n".to_owned());
        faults.star(Place { text: 0, start: 4, end: 14 });
        faults.note("pipeline::x", Place { text: 0, start: 17, end: 18 }, "m", "l", "h");
        let report = faults.report(false);
        assert!(!report.contains("geheim") && report.contains("********"), "{report}");
        assert!(report.contains("p.toml:1:"), "{report}");
    }

    #[test]
    fn an_empty_file_can_have_a_fault() {
        let mut faults = Faults::new("p.toml".to_owned(), String::new());
        faults.note("pipeline::x", Place::default(), "nothing there", "l", "h");
        assert!(faults.report(false).contains("nothing there"));
    }
}
