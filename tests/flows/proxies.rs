//! A proxy that is not configured as trusted.

use tests::Server;

fn told(server: &Server) -> usize {
    server.log().matches("WATCHWORD_TRUSTED_PROXIES").count()
}

async fn ask(server: &Server, header: Option<&str>) {
    let call = server.get("/auth/me");
    let call = match header {
        Some(header) => call.header(header, "192.0.2.7"),
        None => call,
    };
    call.await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn an_untrusted_proxy_is_reported_once_with_the_name_of_the_setting() {
    for header in ["x-forwarded-for", "forwarded"] {
        let server = Server::start().await;
        for _ in 0..3 {
            server.get("/healthz").header(header, "192.0.2.7").await.expect(200);
        }
        for _ in 0..30 {
            ask(&server, Some(header)).await;
        }
        server.says("WATCHWORD_TRUSTED_PROXIES").await;
        assert_eq!(told(&server), 1, "{}", server.log());
        assert!(!server.log().contains("192.0.2.7"), "no client's address is logged");
    }
}

#[tokio::test]
async fn a_trusted_proxy_and_clients_without_one_are_not_reported() {
    let trusted = Server::start_with(&[("WATCHWORD_TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let direct = Server::start().await;
    for _ in 0..30 {
        ask(&trusted, Some("x-forwarded-for")).await;
        ask(&direct, None).await;
    }
    assert_eq!((told(&trusted), told(&direct)), (0, 0));
}
