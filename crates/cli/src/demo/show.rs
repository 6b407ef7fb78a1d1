//! The demonstration on a terminal: both runs side by side, request by request.
//!
//! Of each request it shows the newest turn in full and counts the others. Where there is no room for two columns, one
//! run stands below the other.

use std::collections::BTreeMap;
use std::ops::Range;

use super::trajectory::{
    Answer, Call, Demonstration, Exchange, History, Note, Reasoning, Trajectory,
};
use crate::failure::Failure;
use crate::output::{Output, Style};

/// A line of one column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Line {
    text: String,
    style: Style,
}

/// A column that grows downwards.
#[derive(Debug)]
struct Column {
    width: usize,
    lines: Vec<Line>,
}

/// Room for what is said of each row, and the request's number.
const LABEL: usize = 16;
const BETWEEN: &str = " │ ";
const CROSSING: &str = "─┼─";
const RULE: &str = "─";
/// Fewer columns than this are given to one run at a time.
const SIDE_BY_SIDE: Range<usize> = 84..usize::MAX;
/// The first run has less to say.
const LEFT_PERCENT: usize = 39;
/// More than this is too far for the eye to cross.
const MAX_COLUMNS: usize = 120;
/// Requests of a run that are shown; of longer ones the middle is left out.
const SHOWN: usize = 4;

/// Draws it.
pub(crate) fn show(demonstration: &Demonstration, output: &Output) -> Result<(), Failure> {
    let columns = output.columns().min(MAX_COLUMNS);
    let mut lines = opening(demonstration, columns);
    lines.extend(both(demonstration, columns, output));
    lines.extend(difference(&demonstration.through));
    lines.extend(closing(demonstration));
    let painted = lines
        .iter()
        .map(|line| output.painted(&line.text, line.style) + "\n");
    output.text(&painted.collect::<String>())
}

// === around the columns ===

fn opening(demonstration: &Demonstration, columns: usize) -> Vec<Line> {
    const LABEL: usize = 8;
    let Demonstration {
        persona,
        agent,
        task,
        ..
    } = demonstration;
    let said = [
        (
            "model",
            format!(
                "{persona}, played by a persona: wants its reasoning and its tool-call ids back as they were"
            ),
        ),
        (
            "client",
            format!(
                "like {agent}: drops reasoning, strips ids to letters and digits, sends nameless results"
            ),
        ),
        ("task", (*task).to_owned()),
    ];
    let mut lines = Vec::new();
    for (mut label, text) in said {
        for row in wrapped(&text, columns.saturating_sub(LABEL).max(LABEL)) {
            lines.push(Line::plain(format!("{label:LABEL$}{row}")));
            label = "";
        }
    }
    lines.push(Line::default());
    lines
}

/// Which manifests and passes made the difference, and how often.
fn difference(through: &Trajectory) -> Vec<Line> {
    let mut counted: BTreeMap<(&str, &str), BTreeMap<&str, usize>> = BTreeMap::new();
    for Note {
        manifest,
        pass,
        what,
        ..
    } in through
        .exchanges
        .iter()
        .flat_map(|exchange| &exchange.notes)
    {
        *counted
            .entry((manifest, pass))
            .or_default()
            .entry(what)
            .or_default() += 1;
    }
    let widest =
        |column: fn(&(&str, &str)) -> usize| counted.keys().map(column).max().unwrap_or_default();
    let manifest_width = widest(|(manifest, _)| manifest.len());
    let pass_width = widest(|(_, pass)| pass.len());
    let rows = counted.iter().map(|((manifest, pass), whats)| {
        let whats: Vec<String> = whats
            .iter()
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        let whats = whats.join(", ");
        Line::plain(format!(
            "  {manifest:manifest_width$}  {pass:pass_width$}  {whats}"
        ))
    });
    let head = Line::styled(
        "What made the difference: manifest, pass, what it did",
        Style::Bold,
    );
    [Line::default(), head].into_iter().chain(rows).collect()
}

fn closing(demonstration: &Demonstration) -> Vec<Line> {
    let ending = |trajectory: &Trajectory| match trajectory.outcome() {
        None => "no answer".to_owned(),
        Some(Answer::Calls { .. }) => "unfinished".to_owned(),
        Some(Answer::Refused { status, .. }) => format!("HTTP {status}"),
        Some(Answer::Text { .. }) => {
            format!("answered after {} requests", trajectory.exchanges.len())
        }
    };
    let (straight, through) = (
        ending(&demonstration.straight),
        ending(&demonstration.through),
    );
    let (verdict, style) = match demonstration.as_expected {
        true => ("as it must be", Style::Good),
        false => ("NOT as it must be", Style::Wrong),
    };
    let text = format!("straight: {straight}; through Farrier: {through}; {verdict}");
    vec![Line::default(), Line::styled(text, style)]
}

// === the columns ===

fn both(demonstration: &Demonstration, columns: usize, output: &Output) -> Vec<Line> {
    let Demonstration {
        straight, through, ..
    } = demonstration;
    if !SIDE_BY_SIDE.contains(&columns) {
        let mut lines = run("straight to the model", straight, columns)
            .into_iter()
            .flatten()
            .collect::<Vec<_>>();
        lines.push(Line::default());
        lines.extend(
            run("through Farrier", through, columns)
                .into_iter()
                .flatten(),
        );
        return lines;
    }
    let left_width = columns * LEFT_PERCENT / 100;
    let right_width = columns - left_width - BETWEEN.chars().count();
    let mut left = run("straight to the model", straight, left_width).into_iter();
    let right = run("through Farrier", through, right_width);
    let mut lines = Vec::new();
    for block in right {
        lines.extend(beside(
            left.next().unwrap_or_default(),
            block,
            left_width,
            output,
        ));
    }
    for block in left {
        lines.extend(beside(block, Vec::new(), left_width, output));
    }
    lines
}

/// Two blocks as one, line by line; each keeps its own colours.
fn beside(left: Vec<Line>, right: Vec<Line>, left_width: usize, output: &Output) -> Vec<Line> {
    let height = left.len().max(right.len());
    let line = |block: &[Line], index: usize| block.get(index).cloned().unwrap_or_default();
    let joined = (0..height).map(|index| {
        let (left, right) = (line(&left, index), line(&right, index));
        let is_rule = |line: &Line| line.text.starts_with(RULE);
        let (fill, between) = match is_rule(&left) && is_rule(&right) {
            true => (RULE, CROSSING),
            false => (" ", BETWEEN),
        };
        let padding = fill.repeat(left_width.saturating_sub(left.text.chars().count()));
        let painted = |line: &Line| output.painted(&line.text, line.style);
        let text = format!("{}{padding}{between}{}", painted(&left), painted(&right));
        Line::plain(text.trim_end().to_owned())
    });
    joined.collect()
}

/// A run as blocks: its title, then one for each request.
fn run(title: &str, trajectory: &Trajectory, width: usize) -> Vec<Vec<Line>> {
    let count = trajectory.exchanges.len();
    let left_out = if count > SHOWN {
        SHOWN - 1..count - 1
    } else {
        0..0
    };
    let rule = Line::styled(RULE.repeat(width), Style::Plain);
    let mut blocks = vec![vec![Line::styled(title, Style::Bold), rule]];
    for (index, exchange) in trajectory.exchanges.iter().enumerate() {
        if index == left_out.start && !left_out.is_empty() {
            let more = format!("  … {} more requests like this …", left_out.len());
            blocks.push(vec![Line::styled(more, Style::Dim)]);
        }
        if !left_out.contains(&index) {
            blocks.push(request(index + 1, exchange, width));
        }
    }
    blocks
}

/// What the client sent, what the model heard of it if that was something else, and what came of it.
fn request(number: usize, exchange: &Exchange, width: usize) -> Vec<Line> {
    let Exchange {
        sent,
        received,
        answer,
        ..
    } = exchange;
    let mut column = Column {
        width,
        lines: Vec::new(),
    };
    column.rows(
        &format!("{number} client sends"),
        &history(sent),
        Style::Plain,
    );
    if let Some(received) = received.as_ref().filter(|received| *received != sent) {
        column.rows("  model hears", &history(received), Style::Plain);
    } else if !sent.turns.is_empty() {
        column.rows("  model hears", &["the same".to_owned()], Style::Plain);
    }
    let (rows, style) = given(answer);
    column.rows("  client gets", &rows, style);
    column.lines
}

/// The newest turn, the count of the others, and the results.
fn history(history: &History) -> Vec<String> {
    let Some(newest) = history.turns.last() else {
        return vec!["the task".to_owned()];
    };
    let all = |state| history.turns.iter().all(|turn| turn.reasoning == state);
    let reasoning = match newest.reasoning {
        Reasoning::Lost if all(Reasoning::Lost) => "no reasoning",
        Reasoning::Present if all(Reasoning::Present) => "reasoning",
        Reasoning::Whole if all(Reasoning::Whole) => "reasoning word for word",
        _ => "not all of its reasoning",
    };
    let turns = counted(history.turns.len(), "turn");
    let newest = match (history.turns.len(), newest.ids.as_slice()) {
        (1, [id]) => format!("id {id}"),
        (1, ids) => format!("ids {}", ids.join(" ")),
        (_, ids) => format!("newest id {}", ids.join(" ")),
    };
    vec![format!("{turns}: {reasoning}"), newest, results(history)]
}

fn results(history: &History) -> String {
    let results = counted(history.results.len(), "result");
    let mut names: Vec<Option<&str>> = history
        .results
        .iter()
        .map(|result| result.name.as_deref())
        .collect();
    names.dedup();
    match names.as_slice() {
        [None] => format!("{results} without a name"),
        [Some(name)] => format!("{results} named {name}"),
        _ => format!("{results}, some without a name"),
    }
}

fn given(answer: &Answer) -> (Vec<String>, Style) {
    match answer {
        Answer::Calls { calls } => {
            let row = |call: &Call| format!("{} {:?} as {}", call.name, call.command, call.id);
            (calls.iter().map(row).collect(), Style::Plain)
        }
        Answer::Refused { status, message } => (
            vec![format!("HTTP {status}"), message.clone()],
            Style::Wrong,
        ),
        Answer::Text { text } => (vec![text.clone()], Style::Good),
    }
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

// === impl Column ===

impl Column {
    /// A label, and rows beside it, each as many lines as it needs.
    fn rows(&mut self, label: &str, rows: &[String], style: Style) {
        let room = self.width.saturating_sub(LABEL).max(LABEL);
        let mut label = label;
        for row in rows.iter().flat_map(|row| wrapped(row, room)) {
            self.lines
                .push(Line::styled(format!("{label:LABEL$}{row}"), style));
            label = "";
        }
    }
}

/// `text` in lines of at most `room` characters, broken between words, and within those that are longer.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always a line");
        let used = line.chars().count();
        if used > 0 && used + 1 + word.chars().count() > room {
            lines.push(word.to_owned());
        } else {
            if used > 0 {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    let broken = lines.iter().flat_map(|line| {
        let characters: Vec<char> = line.chars().collect();
        characters
            .chunks(room)
            .map(|piece| piece.iter().collect())
            .collect::<Vec<String>>()
    });
    broken.collect()
}

// === impl Line ===

impl Line {
    fn plain(text: impl Into<String>) -> Self {
        Self::styled(text, Style::Plain)
    }

    fn styled(text: impl Into<String>, style: Style) -> Self {
        Self {
            text: text.into(),
            style,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_whole_where_they_fit() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(
            wrapped("functions.exec:0 x", 8),
            ["function", "s.exec:0", "x"]
        );
        assert_eq!(wrapped("", 8), Vec::<String>::new());
    }
}
