//! `GET /wallet/{walletname}/taker/status` (`spec/api.md` 14.9).

use axum::Json;

use super::{Answer, App, Params, State};
use crate::activity::Role;
use crate::auth::Authenticated;
use crate::roles::TakerStatusJson;

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
) -> Answer<TakerStatusJson> {
    app.loaded(&name)?;
    Ok(Json(app.board.taker_status(app.activity.current() == Some(Role::Taker))))
}
