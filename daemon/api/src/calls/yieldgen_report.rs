//! `GET /wallet/yieldgen/report` (`spec/api.md` 6.27).

use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use axum::Json;
use http::HeaderMap;
use serde_json::json;

use super::{Answer, App, State};
use crate::auth::bearer;
use crate::error::{ApiError, TokenError};

/// Largest part of the report that is sent, bytes: its end. A line has about 80.
const MAX_REPORT: u64 = 16 << 20;

/// Lines with their line ends. Of a longer report: the header line and the newest.
fn read(path: &Path) -> std::io::Result<Vec<String>> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    let lines = |bytes: &[u8]| -> Vec<String> {
        String::from_utf8_lossy(bytes).split_inclusive('\n').map(ToOwned::to_owned).collect()
    };
    let mut bytes = Vec::new();
    if length <= MAX_REPORT {
        file.take(MAX_REPORT).read_to_end(&mut bytes)?;
        return Ok(lines(&bytes));
    }
    (&mut file).take(4096).read_to_end(&mut bytes)?;
    let header = lines(&bytes).into_iter().next();
    bytes.clear();
    file.seek(SeekFrom::Start(length - MAX_REPORT))?;
    file.take(MAX_REPORT).read_to_end(&mut bytes)?;
    // The first line is the end of one that was cut.
    Ok(header.into_iter().chain(lines(&bytes).into_iter().skip(1)).collect())
}

pub(super) async fn handle(State(app): App, headers: HeaderMap) -> Answer {
    if !app.config.public_yieldgen_report {
        app.tokens.check(bearer(&headers).ok_or(TokenError::Missing)?)?;
    }
    let path = app.config.yieldgen_report.clone().ok_or(ApiError::NoReport)?;
    let lines = tokio::task::spawn_blocking(move || read(&path))
        .await
        .map_err(|_| ApiError::Internal("panic"))?
        .map_err(|error| {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!(%error, "yield generator report cannot be read");
            }
            ApiError::NoReport
        })?;
    Ok(Json(json!({"yigen_data": lines})))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_huge_report_keeps_its_header_and_its_end() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"header\n").unwrap();
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..MAX_REPORT / 1024 {
            file.write_all(line.as_bytes()).unwrap();
        }
        file.write_all(b"last\n").unwrap();
        let lines = read(file.path()).unwrap();
        assert_eq!(lines.first().unwrap(), "header\n");
        assert_eq!(lines.get(1).unwrap(), &line);
        assert_eq!(lines.last().unwrap(), "last\n");
    }
}
