//! The real daemon and the real board together: pictures as files, a button that is pressed by words.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use serde_json::json;
use support::board::home_with_board;
use support::client::PASSWORD;
use support::real_board::RealBoard;
use support::{Answer, Client, Home};

async fn try_unlock(client: &Client) -> Answer {
    client.post("/wallet/box.jmdat/unlock", json!({"password": PASSWORD})).await
}

#[tokio::test]
async fn boot_pair_unlock_and_lock_with_the_real_board() {
    let home = home_with_board(Home::new(), "approve = [\"unlock\"]");
    let mut board = RealBoard::start(&home);
    board.screen("starting").await;
    let daemon = home.start();
    board.screen("pairing").await;
    board.light("off").await;
    let mut client = daemon.client();
    client.create("box.jmdat").await;
    board.screen("idle").await;
    board.light("steady").await;
    client.lock().await;
    board.light("off").await;

    let (answer, ()) = tokio::join!(try_unlock(&client), async {
        board.screen("unlock").await;
        board.light("double-blink").await;
        board.press_until_gone("unlock").await;
    });
    client.take_tokens(&answer.expect(200));
    board.light("steady").await;

    // Somebody else who knows the password, and a person at the box who wants none of it.
    let (answer, ()) = tokio::join!(try_unlock(&client), async {
        board.screen("unlock").await;
        board.press("3.3");
        board.light("off").await;
    });
    assert_eq!(answer.expect(409)["error_code"], "approval_refused");
    client.get("/session").await.expect(401);
    client.token.clear();
    assert_eq!(client.get("/session").await.expect(200)["session"], false);
    daemon.stop();
    board.screen("silent").await;
}
