use super::*;
use crate::contract::{append, event, stream};

/// An append of one event with this much data.
fn heavy(kib: usize) -> Append {
    let mut append = append(&stream("a"), 0, 1);
    append.writes[0].events =
        vec![NewEvent { data: format!(r#"{{"x":"{}"}}"#, "x".repeat(kib * 1024)), ..event() }];
    append
}

#[test]
fn given_more_than_a_server_takes_when_it_is_split_then_nothing_is_lost_and_giants_go_alone() {
    let lengths = |kib: &[usize]| {
        let appends: Vec<Append> = kib.iter().copied().map(heavy).collect();
        let groups = groups(&appends);
        assert_eq!(groups.concat().len(), appends.len());
        groups.iter().map(|group| group.len()).collect::<Vec<_>>()
    };
    assert_eq!(lengths(&[]), Vec::<usize>::new());
    assert_eq!(lengths(&[1, 1, 1]), [3]);
    assert_eq!(lengths(&[200, 200, 200, 200, 1]), [2, 3]);
    assert_eq!(lengths(&[2000]), [1]);
    assert_eq!(lengths(&[1, 2000, 1]), [1, 1, 1]);
}
