use domain::user::User;
use domain::{Role, UserId};

use super::*;

fn cache(capacity: usize, bytes: u64) -> Cache<StreamId, Cached, Bytes> {
    Cache::with_weighter(capacity, bytes, Bytes { at_least: (bytes / capacity as u64).max(1) })
}

fn user(roles: usize) -> (StreamId, Cached) {
    let id = UserId(Uuid::from_bytes(crate::clock::random()));
    let roles = (0..roles).map(|n| Role::parse(format!("role-number-{n}")).expect("valid")).collect();
    let state = User { id: Some(id), name: Some("Ada Lovelace".to_owned()), roles, ..User::default() };
    let stream = StreamId::user(id);
    let cached = Cached::new(&stream, Arc::new(Loaded { version: 1, state }));
    (stream, cached)
}

#[test]
fn what_is_at_hand_is_bounded_by_what_it_takes_and_by_how_much_it_is() {
    const MIB: u64 = 1 << 20;
    let (small, big) = (user(0).1.bytes, user(50).1.bytes);
    assert!(small > size_of::<User>() as u64 && small < 4096, "{small}");
    assert!(big > small + 50 * 14, "{big}");
    for roles in [0, 50] {
        let by_bytes = cache(100_000, MIB);
        let by_number = cache(500, 100 * MIB);
        for _ in 0..5_000 {
            let (stream, cached) = user(roles);
            by_bytes.insert(stream.clone(), cached.clone());
            by_number.insert(stream, cached);
        }
        let taken: u64 = by_bytes.iter().map(|(_, cached)| cached.bytes).sum();
        assert!(taken <= MIB, "{taken}");
        assert!(taken > MIB / 2, "what there is room for is kept: {taken}");
        assert!(by_number.len() <= 500, "{}", by_number.len());
    }
}
