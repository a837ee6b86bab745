//! Access and refresh tokens: two keys, the scope of the current wallet, and refresh families
//! (`spec/api.md` 3.1, 3.2).

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::hs256::Key;
use crate::clock::Clock;
use crate::error::{RefreshError, TokenError};

/// Lifetime of an access token, seconds.
pub const ACCESS_LIFETIME: u64 = 1800;
/// Lifetime of a refresh token, seconds.
pub const REFRESH_LIFETIME: u64 = 14_400;
/// How long after its end a token is still taken, seconds.
const LEEWAY: u64 = 10;
/// How long a rotated refresh token still works: two tabs refreshing at once, or a lost answer. Seconds.
const GRACE: u64 = 120;
/// Longest token that is looked at; ours have about 250 characters.
const MAX_TOKEN: usize = 4096;
/// Most clients that can hold a refresh token at once; the one that was quiet longest goes first.
const MAX_FAMILIES: usize = 256;
/// The scope that every token has.
const BASE_SCOPE: &str = "walletrpc";

/// What is in our tokens. `exp` and `scope` as in the reference; the others are ours.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Claims {
    exp: u64,
    scope: String,
    jti: String,
    fam: String,
}

/// The answer to a successful login or refresh, without wallet name and seed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TokenPair {
    pub(crate) token: String,
    pub(crate) token_type: &'static str,
    pub(crate) expires_in: u64,
    pub(crate) scope: String,
    pub(crate) refresh_token: String,
}

/// Who is calling: the line of refreshes that started with one login.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Family(String);

/// Which set of keys a token was checked against; grows with each reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(pub(crate) u64);

/// A token that was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) family: Family,
    pub(crate) epoch: Epoch,
}

#[derive(Debug)]
struct FamilyState {
    /// The refresh token that is good.
    current: String,
    /// The one before it, and when it was replaced.
    previous: Option<(String, u64)>,
    /// When it was last refreshed.
    used: u64,
}

struct State {
    access: Key,
    refresh: Key,
    epoch: Epoch,
    wallet: Option<String>,
    families: HashMap<String, FamilyState>,
}

/// Issues, checks, rotates and revokes tokens.
pub(crate) struct Tokens {
    clock: Clock,
    state: Mutex<State>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// 128 random bits as hex.
fn random_id() -> String {
    hex::encode(random::<16>().as_slice())
}

fn random<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice()).expect("the kernel's random source works once it is up");
    bytes
}

fn fresh_key() -> Key {
    Key::new(random::<32>().as_slice())
}

fn scope_of(wallet: Option<&str>) -> String {
    wallet.map_or_else(
        || BASE_SCOPE.to_owned(),
        |name| format!("{BASE_SCOPE} {}", STANDARD.encode(name)),
    )
}

impl State {
    fn decode(key: &Key, token: &str) -> Option<Claims> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let mut validation = Validation::new(Algorithm::HS256);
        // Against our own clock, below: the system's may jump while tokens live.
        validation.validate_exp = false;
        validation.validate_aud = false;
        jsonwebtoken::decode(token, &key.decoding, &validation).ok().map(|data| data.claims)
    }

    fn scope_is_enough(&self, claims: &Claims) -> bool {
        let granted: HashSet<&str> = claims.scope.split_whitespace().collect();
        scope_of(self.wallet.as_deref()).split_whitespace().all(|need| granted.contains(need))
    }

    fn sign(key: &Key, claims: &Claims) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key.encoding)
            .expect("strings and integers serialise, and HS256 takes any key")
    }

    /// Signs a pair for a family, whose current refresh token becomes the new one.
    fn issue(&mut self, family: &str, now: u64) -> TokenPair {
        let scope = scope_of(self.wallet.as_deref());
        let claims = |lifetime| Claims {
            exp: now + lifetime,
            scope: scope.clone(),
            jti: random_id(),
            fam: family.to_owned(),
        };
        let access = claims(ACCESS_LIFETIME);
        let refresh = claims(REFRESH_LIFETIME);
        let token = Self::sign(&self.access, &access);
        let refresh_token = Self::sign(&self.refresh, &refresh);
        let previous = self.families.remove(family).map(|old| (old.current, now));
        self.families
            .insert(family.to_owned(), FamilyState { current: refresh.jti, previous, used: now });
        TokenPair { token, token_type: "bearer", expires_in: ACCESS_LIFETIME, scope, refresh_token }
    }

    fn new_family(&mut self, now: u64) -> TokenPair {
        self.families.retain(|_, family| family.used + REFRESH_LIFETIME + LEEWAY > now);
        if self.families.len() >= MAX_FAMILIES {
            let oldest = self.families.iter().min_by_key(|(_, family)| family.used);
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                self.families.remove(&id);
            }
        }
        self.issue(&random_id(), now)
    }
}

impl Tokens {
    /// Fresh keys: nothing that was issued before is good.
    pub(crate) fn new(clock: Clock) -> Self {
        let state = State {
            access: fresh_key(),
            refresh: fresh_key(),
            epoch: Epoch(0),
            wallet: None,
            families: HashMap::new(),
        };
        Self { clock, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below is made of steps that cannot panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.clock.steady().as_secs()
    }

    /// Forgets every token and names the wallet that later ones are for.
    pub(crate) fn reset(&self, wallet: Option<&str>) -> Epoch {
        let mut state = self.lock();
        state.access = fresh_key();
        state.refresh = fresh_key();
        state.epoch = Epoch(state.epoch.0 + 1);
        state.wallet = wallet.map(ToOwned::to_owned);
        state.families.clear();
        state.epoch
    }

    /// A pair for a client that has just shown the password of the current wallet.
    pub(crate) fn login(&self) -> TokenPair {
        let now = self.now();
        self.lock().new_family(now)
    }

    /// Checks an access token: signature and form, then time, then scope.
    pub(crate) fn check(&self, token: &str) -> Result<Accepted, TokenError> {
        let now = self.now();
        let state = self.lock();
        let claims = State::decode(&state.access, token).ok_or(TokenError::Invalid)?;
        if expired(&claims, now) {
            return Err(TokenError::Expired);
        }
        if !state.scope_is_enough(&claims) {
            return Err(TokenError::Scope);
        }
        // Gone after a logout.
        if !state.families.contains_key(&claims.fam) {
            return Err(TokenError::Invalid);
        }
        Ok(Accepted { family: Family(claims.fam), epoch: state.epoch })
    }

    /// As [`Tokens::check`], but a token whose time is over is fine: what `POST /token` asks of its header.
    pub(crate) fn check_even_expired(&self, token: &str) -> Result<(), TokenError> {
        match self.check(token) {
            Ok(_) | Err(TokenError::Expired) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends the tokens of one client.
    pub(crate) fn revoke(&self, family: &Family) {
        self.lock().families.remove(&family.0);
    }

    /// Whether this is a refresh token that [`Tokens::refresh`] would take.
    pub(crate) fn is_good_refresh_token(&self, token: &str) -> bool {
        let now = self.now();
        self.lock().check_refresh(token, now).is_ok()
    }

    /// Exchanges a refresh token for a fresh pair.
    ///
    /// The predecessor of a family's token works for 120 s more and then founds a family of its own, so that
    /// two tabs that refresh at the same time do not log each other out.
    pub(crate) fn refresh(&self, token: &str) -> Result<(String, TokenPair), RefreshError> {
        let now = self.now();
        let mut state = self.lock();
        let (family, current) = state.check_refresh(token, now)?;
        let pair = if current { state.issue(&family, now) } else { state.new_family(now) };
        let wallet = state.wallet.clone().ok_or(RefreshError::Invalid)?;
        Ok((wallet, pair))
    }
}

fn expired(claims: &Claims, now: u64) -> bool {
    claims.exp.saturating_add(LEEWAY) <= now
}

impl State {
    /// The family of a good refresh token, and whether it is the family's current one.
    fn check_refresh(&self, token: &str, now: u64) -> Result<(String, bool), RefreshError> {
        let claims = Self::decode(&self.refresh, token).ok_or(RefreshError::Invalid)?;
        if expired(&claims, now) {
            return Err(RefreshError::Expired);
        }
        if !self.scope_is_enough(&claims) {
            return Err(RefreshError::Scope);
        }
        let family = self.families.get(&claims.fam).ok_or(RefreshError::Invalid)?;
        if family.current == claims.jti {
            return Ok((claims.fam, true));
        }
        match &family.previous {
            Some((jti, replaced)) if *jti == claims.jti && now <= replaced + GRACE => {
                Ok((claims.fam, false))
            }
            _ => Err(RefreshError::Invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::ManualClock;

    fn tokens() -> (ManualClock, Tokens) {
        let clock = ManualClock::new(1_800_000_000);
        let tokens = Tokens::new(clock.clock());
        tokens.reset(Some("test.jmdat"));
        (clock, tokens)
    }

    fn claims(token: &str) -> Value {
        let part = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    fn forge(tokens: &Tokens, header: &Value, claims: &Value) -> String {
        let text = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        super::super::hs256::install();
        let state = tokens.lock();
        let tag =
            jsonwebtoken::crypto::sign(text.as_bytes(), &state.access.encoding, Algorithm::HS256)
                .unwrap();
        format!("{text}.{tag}")
    }

    #[test]
    fn tokens_have_the_documented_form() {
        let (_, tokens) = tokens();
        let pair = tokens.login();
        assert_eq!(pair.scope, "walletrpc dGVzdC5qbWRhdA==");
        assert_eq!(pair.expires_in, 1800);
        let header = pair.token.split('.').next().unwrap();
        let header = URL_SAFE_NO_PAD.decode(header).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&header).unwrap(),
            json!({"typ": "JWT", "alg": "HS256"})
        );
        assert_eq!(claims(&pair.token)["exp"], 1_800_001_800_u64);
        assert_eq!(claims(&pair.refresh_token)["exp"], 1_800_014_400_u64);
        assert!(tokens.check(&pair.token).is_ok());
    }

    #[test]
    fn expiry_has_ten_seconds_of_leeway() {
        let (clock, tokens) = tokens();
        let pair = tokens.login();
        clock.advance(ACCESS_LIFETIME + 9);
        assert!(tokens.check(&pair.token).is_ok());
        clock.advance(1);
        assert_eq!(tokens.check(&pair.token).unwrap_err(), TokenError::Expired);
        assert!(tokens.check_even_expired(&pair.token).is_ok());
        clock.advance(3600);
        assert_eq!(tokens.check(&pair.token).unwrap_err(), TokenError::Expired);
        clock.advance(REFRESH_LIFETIME);
        assert_eq!(tokens.refresh(&pair.refresh_token).unwrap_err(), RefreshError::Expired);
    }

    #[test]
    fn an_expired_token_of_another_wallet_is_expired_and_not_out_of_scope() {
        let (clock, tokens) = tokens();
        let base = json!(
            {"exp": 1_800_001_800_u64, "scope": "walletrpc b3RoZXI=", "jti": "1", "fam": "2"});
        let hs256 = json!({"typ": "JWT", "alg": "HS256"});
        let token = forge(&tokens, &hs256, &base);
        assert_eq!(tokens.check(&token).unwrap_err(), TokenError::Scope);
        clock.advance(4000);
        assert_eq!(tokens.check(&token).unwrap_err(), TokenError::Expired);
    }

    #[test]
    fn scopes_are_compared_as_words() {
        let (_, tokens) = tokens();
        let family = claims(&tokens.login().token)["fam"].clone();
        let hs256 = json!({"typ": "JWT", "alg": "HS256"});
        for (scope, good) in [
            ("walletrpc dGVzdC5qbWRhdA==", true),
            ("dGVzdC5qbWRhdA== walletrpc extra", true),
            ("walletrpcdGVzdC5qbWRhdA==", false),
            ("walletrpc xdGVzdC5qbWRhdA==", false),
            ("walletrpc", false),
            ("", false),
        ] {
            let claims =
                json!({"exp": 1_800_001_800_u64, "scope": scope, "jti": "1", "fam": family});
            let outcome = tokens.check(&forge(&tokens, &hs256, &claims));
            assert_eq!(outcome.is_ok(), good, "{scope}");
        }
    }

    #[test]
    fn tokens_of_every_wrong_kind_are_invalid() {
        let (_, tokens) = tokens();
        let pair = tokens.login();
        let good = claims(&pair.token);
        let mut wrong = vec![
            String::new(),
            "x".to_owned(),
            "a.b.c".to_owned(),
            "..".to_owned(),
            "a".repeat(8192),
            pair.refresh_token.clone(),
            format!("{} ", pair.token),
            pair.token.rsplit_once('.').unwrap().0.to_owned() + ".",
        ];
        let mut flipped = pair.token.clone().into_bytes();
        let place = flipped.len() - 10;
        flipped[place] = if flipped[place] == b'A' { b'B' } else { b'A' };
        wrong.push(String::from_utf8(flipped).unwrap());
        for algorithm in ["none", "None", "HS384", "HS512", "RS256", "hs256"] {
            wrong.push(forge(&tokens, &json!({"typ": "JWT", "alg": algorithm}), &good));
        }
        let hs256 = json!({"typ": "JWT", "alg": "HS256"});
        wrong.push(forge(&tokens, &hs256, &json!({"scope": "walletrpc dGVzdC5qbWRhdA=="})));
        wrong.push(forge(
            &tokens,
            &hs256,
            &json!({"exp": "soon", "scope": "", "jti": "", "fam": ""}),
        ));
        wrong.push(forge(&tokens, &hs256, &json!([])));
        for token in wrong {
            assert_eq!(tokens.check(&token).unwrap_err(), TokenError::Invalid, "{token}");
        }
        assert_eq!(tokens.refresh(&pair.token).unwrap_err(), RefreshError::Invalid);
    }

    #[test]
    fn a_reset_ends_every_token() {
        let (_, tokens) = tokens();
        let pair = tokens.login();
        tokens.reset(None);
        assert_eq!(tokens.check(&pair.token).unwrap_err(), TokenError::Invalid);
        assert_eq!(tokens.refresh(&pair.refresh_token).unwrap_err(), RefreshError::Invalid);
        tokens.reset(Some("test.jmdat"));
        assert_eq!(tokens.check(&pair.token).unwrap_err(), TokenError::Invalid);
    }

    #[test]
    fn a_rotated_refresh_token_lives_for_two_minutes_and_access_tokens_live_on() {
        let (clock, tokens) = tokens();
        let first = tokens.login();
        let (name, second) = tokens.refresh(&first.refresh_token).unwrap();
        assert_eq!(name, "test.jmdat");
        assert!(tokens.check(&first.token).is_ok());
        clock.advance(GRACE);
        let (_, fork) = tokens.refresh(&first.refresh_token).unwrap();
        clock.advance(1);
        assert_eq!(tokens.refresh(&first.refresh_token).unwrap_err(), RefreshError::Invalid);
        // Neither of the two that refreshed with the same token has been logged out.
        assert!(tokens.refresh(&second.refresh_token).is_ok());
        assert!(tokens.refresh(&fork.refresh_token).is_ok());
    }

    #[test]
    fn a_second_login_leaves_the_first_client_alone() {
        let (clock, tokens) = tokens();
        let first = tokens.login();
        let _second = tokens.login();
        clock.advance(600);
        assert!(tokens.refresh(&first.refresh_token).is_ok());
    }

    #[test]
    fn a_logout_ends_one_client_only() {
        let (_, tokens) = tokens();
        let (first, second) = (tokens.login(), tokens.login());
        let family = tokens.check(&first.token).unwrap().family;
        tokens.revoke(&family);
        assert_eq!(tokens.check(&first.token).unwrap_err(), TokenError::Invalid);
        assert_eq!(tokens.refresh(&first.refresh_token).unwrap_err(), RefreshError::Invalid);
        assert!(tokens.check(&second.token).is_ok());
    }

    #[test]
    fn the_number_of_families_is_bounded() {
        let (_, tokens) = tokens();
        for _ in 0..MAX_FAMILIES + 20 {
            tokens.login();
        }
        assert_eq!(tokens.lock().families.len(), MAX_FAMILIES);
    }
}
