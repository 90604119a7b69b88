use super::*;

#[test]
fn messages_come_in_parts() {
    let mut bytes = BytesMut::from(&[0, 0, 0, 0, 2, 7][..]);
    assert_eq!(message(&mut bytes), Ok(None));
    bytes.extend_from_slice(&[8, 0, 0, 0, 0, 0, 9]);
    assert_eq!(message(&mut bytes), Ok(Some(Bytes::from_static(&[7, 8]))));
    assert_eq!(message(&mut bytes), Ok(Some(Bytes::new())));
    assert_eq!(message(&mut bytes), Ok(None));
    for wrong in [[1, 0, 0, 0, 0], [0, 255, 0, 0, 0]] {
        assert!(message(&mut BytesMut::from(&wrong[..])).is_err());
    }
}

#[test]
fn a_status_says_what_the_server_said() {
    let headers = |pairs: &[(&'static str, &'static str)]| {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().expect("a name"), HeaderValue::from_static(value)))
            .collect()
    };
    assert!(grpc_status(&headers(&[])).is_none());
    assert!(grpc_status(&headers(&[("grpc-status", "0")])).expect("ended").is_ok());
    let ended = grpc_status(&headers(&[
        ("grpc-status", "5"),
        ("exception", "not-leader"),
        ("leader-endpoint-host", "a"),
        ("leader-endpoint-port", "2113"),
        ("grpc-message", "Leader%20info"),
    ]));
    let status = ended.expect("ended").expect_err("ended badly");
    let leader = Some(Endpoint { host: "a".to_owned(), port: 2113 });
    assert_eq!((status.code, status.text.as_str(), status.leader), (5, "Leader info", leader));
}
