//! Where a running server listens.

use anyhow::Context;
use serde::Deserialize;
use sluice_client::Endpoint;

/// Where a server can be reached: `serve`'s first line, and `GET /endpoints`.
#[derive(Debug, Clone, Deserialize)]
pub struct Addresses {
    /// HTTP APIs.
    pub http: String,
    /// TCP clients.
    pub tcp: Option<String>,
    /// WebSocket clients.
    pub ws: Option<String>,
}

// === impl Addresses ===

impl Addresses {
    /// Asks a running server.
    pub async fn of(http: &str) -> anyhow::Result<Self> {
        let http = http.trim_start_matches("http://").trim_end_matches('/');
        let url = format!("http://{http}/endpoints");
        let answer = reqwest::get(&url)
            .await
            .with_context(|| format!("no server at {url}"))?;
        let addresses = answer.error_for_status()?.json::<Self>().await;
        let addresses =
            addresses.with_context(|| format!("{url} does not answer like a Sluice server"))?;
        let host = http.rsplit_once(':').map_or(http, |(host, _)| host);
        Ok(addresses.seen_from(host, http))
    }

    /// A server that listens on all its addresses names none of them: then it is
    /// where its HTTP API was found.
    fn seen_from(self, host: &str, http: &str) -> Self {
        let named = |address: String| match address.strip_prefix("0.0.0.0:") {
            Some(port) => format!("{host}:{port}"),
            None => address,
        };
        Self {
            http: http.to_owned(),
            tcp: self.tcp.map(named),
            ws: self.ws.map(named),
        }
    }

    /// Where clients connect.
    pub fn endpoint(&self) -> anyhow::Result<Endpoint> {
        let tcp = self
            .tcp
            .as_ref()
            .map(|tcp| tcp.parse())
            .transpose()
            .context("tcp address")?;
        Ok(Endpoint {
            tcp,
            ws: self.ws.as_ref().map(|ws| format!("ws://{ws}/")),
        })
    }
}
