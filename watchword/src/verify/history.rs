//! The events of an export, one after the other: what can be wrong with their order.

use std::collections::{BTreeMap, HashMap};

use schemas::ExportedEvent;
use uuid::Uuid;

use super::Verdict;
use super::export::{Line, Place};
use super::roots::Roots;
use super::trust::Trust;

/// How many gaps are kept open for events that stand elsewhere.
const GAPS: usize = 1000;

/// The names of streams take much memory: this stands for one.
pub type StreamHash = [u8; 16];

/// What follows from the events so far.
pub struct History {
    /// The position that is next.
    next: u64,
    /// Positions that were passed over, from the first to the last of each gap, with the line behind it.
    gaps: BTreeMap<u64, (u64, u64)>,
    versions: HashMap<StreamHash, u64>,
    /// The ids, in the order of the lines, and the position of each.
    ids: Vec<(Uuid, u64)>,
    origin: Option<String>,
    roots: Roots,
    lines: u64,
    /// The number of lines whose stream is unknown and has not yet shown up as a gap in one.
    unread: u64,
    pub trust: Trust,
}

impl History {
    /// No events yet. The roots at these sizes are wanted.
    pub fn new(trust: Trust, sizes: impl IntoIterator<Item = u64>) -> Self {
        Self {
            next: 1,
            gaps: BTreeMap::new(),
            versions: HashMap::new(),
            ids: Vec::new(),
            origin: None,
            roots: Roots::wanted(sizes),
            lines: 0,
            unread: 0,
            trust,
        }
    }

    /// The next line.
    pub fn see(&mut self, text: &[u8], line: Line, verdict: &mut Verdict) {
        self.lines += 1;
        let Line { leaf, place, problem } = line;
        let position = place.as_ref().map_or(self.next, |place| place.position);
        if let Some(problem) = problem {
            let number = self.lines;
            verdict.fault(position, format!("{problem} (line {number})"));
        }
        let is_next = position == self.next;
        self.order(position, verdict);
        if is_next {
            self.roots.push(leaf);
        } else {
            self.roots.end();
        }
        match place {
            Some(place) => self.place(text, place, verdict),
            None => self.unread += 1,
        }
    }

    fn order(&mut self, position: u64, verdict: &mut Verdict) {
        let line = self.lines;
        if position >= self.next {
            if position > self.next {
                if self.gaps.len() < GAPS {
                    self.gaps.insert(self.next, (position - 1, line));
                } else {
                    verdict.fault(self.next, missing(self.next, position - 1, line));
                }
            }
            self.next = position.saturating_add(1);
            return;
        }
        let gap = self.gaps.range(..=position).next_back().map(|(first, gap)| (*first, *gap));
        match gap.filter(|(_, (last, _))| position <= *last) {
            Some((first, (last, behind))) => {
                self.gaps.remove(&first);
                if first < position {
                    self.gaps.insert(first, (position - 1, behind));
                }
                if position < last {
                    self.gaps.insert(position + 1, (last, behind));
                }
                let before = self.next - 1;
                verdict.fault(
                    position,
                    format!("it is out of order: it stands behind event {before} (line {line})"),
                );
            }
            None => verdict.fault(position, format!("it is there twice, or behind later ones (line {line})")),
        }
    }

    fn place(&mut self, text: &[u8], place: Place, verdict: &mut Verdict) {
        let Place { position, id, stream, version, origin, keys } = place;
        let before = self.versions.insert(stream, version).unwrap_or_default();
        // A missing version may be that of a line that was already reported.
        let left_out = version.saturating_sub(before + 1);
        if version > before && left_out <= self.unread {
            self.unread -= left_out;
        } else {
            let name = ExportedEvent::read(text)
                .map_or_else(|_| "its stream".to_owned(), |it| it.stream.to_string());
            let behind = if before == 0 {
                "its first one here".to_owned()
            } else {
                format!("behind version {before}")
            };
            verdict.fault(position, format!("it is version {version} of {name}, {behind}"));
        }
        self.ids.push((id, position));
        if let Some(origin) = origin {
            match &self.origin {
                Some(known) if *known != origin => {
                    verdict.fault(position, format!("it is of the log {origin}, those before it of {known}"));
                }
                Some(_) => {}
                None => self.origin = Some(origin),
            }
        }
        if let Some(event) = keys {
            event.apply(position, &mut self.trust);
        }
    }

    /// The number of events, and of streams.
    pub fn counts(&self) -> (u64, usize) {
        (self.lines, self.versions.len())
    }

    /// The origin of the journal, as the first event names it.
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// Its tree.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// What only the end shows.
    pub fn end(&mut self, verdict: &mut Verdict) {
        for (first, (last, line)) in std::mem::take(&mut self.gaps) {
            verdict.fault(first, missing(first, last, line));
        }
        let mut ids = std::mem::take(&mut self.ids);
        ids.sort_unstable();
        for pair in ids.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let [(id, first), (_, second)] = [pair[0], pair[1]];
            verdict.fault(second, format!("it has the id of event {first}, {id}"));
        }
    }
}

fn missing(first: u64, last: u64, line: u64) -> String {
    if first == last {
        format!("it is missing (before line {line})")
    } else {
        format!("it and those up to event {last} are missing (before line {line})")
    }
}
