//! `GET /wallet/{walletname}/rounds` (`spec/api.md` App. C 1, 5): the coinjoin rounds that run and the last hundred that
//! are over, newest first.

use axum::Json;
use joinery_wallet::round::MAX_KEPT_ROUNDS;
use serde::Serialize;

use super::{Answer, App, Params, State};
use crate::auth::Authenticated;
use crate::dto::round::RoundJson;

#[derive(Debug, Serialize)]
pub(super) struct Rounds {
    rounds: Vec<RoundJson>,
}

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
) -> Answer<Rounds> {
    let snapshot = app.loaded(&name)?.snapshot();
    let (mut running, mut over) = (Vec::new(), Vec::new());
    for round in snapshot.rounds.iter().rev() {
        let list = if round.is_over() { &mut over } else { &mut running };
        list.push(RoundJson::from(&**round));
    }
    over.truncate(MAX_KEPT_ROUNDS);
    running.extend(over);
    Ok(Json(Rounds { rounds: running }))
}
