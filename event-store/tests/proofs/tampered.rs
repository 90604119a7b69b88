//! Whatever is changed in a store at random.

use std::cell::RefCell;
use std::sync::Arc;

use event_store::Journal;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::administrator::{Administrator, COLUMNS, Cells, Kind, Placed, copy_of, row_at};
use super::store::{Store, history};

/// An open journal, an administrator who writes to its store, and the rows as they were written.
type TamperedStore = (Arc<dyn Journal>, RefCell<Administrator>, Vec<Cells>);

/// Both stores, open, with the same history and an administrator who writes to them, for all cases.
struct Tampered {
    runtime: tokio::runtime::Runtime,
    stores: Vec<TamperedStore>,
    _places: [Store; 2],
}

impl Tampered {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("builds");
        let places = Store::both();
        let stores = runtime.block_on(async {
            let mut stores = Vec::new();
            for store in &places {
                let journal = store.open().await;
                history(&*journal).await;
                let mut administrator = Administrator::of(store).await;
                let mut rows = Vec::new();
                for position in 1..=5 {
                    rows.push(administrator.row(position).await);
                }
                stores.push((journal, RefCell::new(administrator), rows));
            }
            stores
        });
        Self { runtime, stores, _places: places }
    }

    /// Replaces the rows by what `change` makes of them, by position: each of those is refused, and no other.
    fn missed(
        &self,
        what: &str,
        change: &dyn Fn(&[Cells]) -> Placed,
        away: &[u64],
    ) -> Result<(), TestCaseError> {
        for (journal, administrator, rows) in &self.stores {
            let changed = change(rows);
            let is_same = |(position, cells): &(u64, Cells)| row_at(rows, *position) == Some(cells);
            if changed.iter().all(is_same) {
                continue;
            }
            let mut administrator = administrator.borrow_mut();
            self.runtime.block_on(async {
                let put: Vec<_> = changed.iter().map(|(position, cells)| (*position, cells)).collect();
                if administrator.put(away, &put).await {
                    for row in &changed {
                        let position = row.0;
                        let read = journal.read_positions(&[position]).await;
                        if is_same(row) {
                            prop_assert!(read.is_ok(), "{what}: event {position}");
                            continue;
                        }
                        let error = read.expect_err(what).to_string();
                        prop_assert!(error.contains(&format!("event {position} ")), "{what}: {error}");
                    }
                    let new: Vec<u64> = changed.iter().map(|(position, _)| *position).collect();
                    let back: Vec<_> = away
                        .iter()
                        .filter_map(|&position| Some((position, row_at(rows, position)?)))
                        .collect();
                    prop_assert!(administrator.put(&new, &back).await, "{what}: it goes back");
                }
                let whole = journal.read_all(0, 9).await.map(|events| events.len());
                prop_assert_eq!(whole, Ok(5), "{}", what);
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn cases<S: Strategy>(strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let mut runner = TestRunner::new(ProptestConfig { cases: 64, ..ProptestConfig::default() });
    if let Err(error) = runner.run(strategy, test) {
        panic!("{error}");
    }
}

#[test]
fn any_bit_of_any_column_is_missed() {
    let tampered = Tampered::new();
    let bits = prop::collection::vec(any::<prop::sample::Index>(), COLUMNS.len());
    cases(&(bits, 1_u64..=5), |(bits, position)| {
        for (number, (column, kind)) in COLUMNS.iter().enumerate() {
            let flip = |rows: &[Cells]| {
                let mut cells = copy_of(rows, position);
                let cell = cells[number].as_mut().expect("nothing is absent");
                if let Kind::Number(width) = kind {
                    let whole: i64 = std::str::from_utf8(cell).expect("digits").parse().expect("a number");
                    *cell = (whole ^ (1 << bits[number].index(*width))).to_string().into_bytes();
                } else {
                    let bit = bits[number].index(cell.len() * 8);
                    cell[bit / 8] ^= 1 << (bit % 8);
                }
                vec![(position, cells)]
            };
            tampered.missed(column, &flip, &[position])?;
            let take_away = |rows: &[Cells]| {
                let mut cells = copy_of(rows, position);
                cells[number] = None;
                vec![(position, cells)]
            };
            tampered.missed(column, &take_away, &[position])?;
        }
        Ok(())
    });
}

/// Any of their columns, or all of them, in which case the rows have swapped places.
#[test]
fn events_that_change_places_are_missed() {
    let tampered = Tampered::new();
    let columns =
        prop_oneof![prop::collection::vec(any::<bool>(), COLUMNS.len()), Just(vec![true; COLUMNS.len()]),];
    cases(&(columns, 1_u64..=5, 1_u64..=5), |(columns, one, other)| {
        prop_assume!(one != other);
        let swap = |rows: &[Cells]| {
            let [mut first, mut second] = [one, other].map(|position| copy_of(rows, position));
            for (number, _) in columns.iter().enumerate().filter(|(_, swapped)| **swapped) {
                std::mem::swap(&mut first[number], &mut second[number]);
            }
            vec![(one, first), (other, second)]
        };
        tampered.missed("swapped", &swap, &[one, other])
    });
}

/// Moved or copied to any other position, with any version.
#[test]
fn an_event_that_is_moved_is_missed() {
    let tampered = Tampered::new();
    cases(&(1_u64..=5, 6_u64..1000, 1_i64..1000, any::<bool>()), |(from, to, version, is_renumbered)| {
        let moved = |rows: &[Cells]| {
            let mut cells = copy_of(rows, from);
            if is_renumbered {
                cells[2] = Some(version.to_string().into_bytes());
            }
            vec![(to, cells)]
        };
        tampered.missed("moved", &moved, &[from])?;
        tampered.missed("copied", &moved, &[])
    });
}
