//! Where a running server listens.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use rand::seq::SliceRandom as _;
use serde::Deserialize;
use sluice_client::Endpoint;

use crate::config::GatewayEndpoint;

/// Where a server can be reached: `serve`'s first line, and `GET /endpoints`.
#[derive(Debug, Clone, Deserialize)]
pub struct Addresses {
    /// HTTP APIs; empty for a gateway, which has none.
    #[serde(default)]
    pub http: String,
    /// Health and metrics, in a first line only.
    pub admin: Option<String>,
    /// TCP clients.
    pub tcp: Option<String>,
    /// WebSocket clients.
    pub ws: Option<String>,
    /// UDP clients.
    pub udp: Option<String>,
    /// What clients pin, of UDP and of encrypted TCP.
    pub pins: Option<String>,
    /// The gateways one by one, where a client may choose.
    #[serde(default)]
    pub gateways: Vec<GatewayEndpoint>,
}

// === impl Addresses ===

impl Addresses {
    /// Of what takes clients by TCP and nothing else.
    pub fn of_tcp(address: SocketAddr) -> Self {
        Self {
            http: String::new(),
            admin: None,
            tcp: Some(address.to_string()),
            ws: None,
            udp: None,
            pins: None,
            gateways: Vec::new(),
        }
    }

    /// Asks a running server.
    pub async fn of(http: &str) -> anyhow::Result<Self> {
        let http = http.trim_start_matches("http://").trim_end_matches('/');
        let url = format!("http://{http}/endpoints");
        // The URL is named here; the causes would name it again.
        let answer = reqwest::get(&url)
            .await
            .map_err(reqwest::Error::without_url)
            .with_context(|| format!("no server at {url}"))?;
        let answered = async { answer.error_for_status()?.json::<Self>().await };
        let addresses = (answered.await)
            .map_err(reqwest::Error::without_url)
            .with_context(|| format!("{url} does not answer like a Sluice server"))?;
        let host = http.rsplit_once(':').map_or(http, |(host, _)| host);
        let mut found = tokio::net::lookup_host((host, 0))
            .await
            .with_context(|| format!("cannot resolve {host}"))?;
        let ip = found
            .next()
            .with_context(|| format!("{host} has no address"))?
            .ip();
        let ip = found
            .map(|address| address.ip())
            .find(IpAddr::is_ipv4)
            .unwrap_or(ip);
        let mut addresses = addresses.seen_from(ip, http);
        let of_gateways = addresses.gateways.iter_mut();
        let of_gateways = of_gateways.flat_map(|it| [&mut it.tcp, &mut it.udp]);
        let all = of_gateways.chain([&mut addresses.tcp, &mut addresses.udp]);
        for place in all.flatten() {
            *place = resolved(place).await?;
        }
        Ok(addresses)
    }

    /// A server that listens on all its addresses names none of them: then it is
    /// where its HTTP API was found.
    fn seen_from(self, ip: IpAddr, http: &str) -> Self {
        let named = |address: String| match address.parse::<SocketAddr>() {
            Ok(listening) if listening.ip().is_unspecified() => {
                SocketAddr::new(ip, listening.port()).to_string()
            }
            _ => address,
        };
        Self {
            http: http.to_owned(),
            admin: None,
            tcp: self.tcp.map(named),
            ws: self.ws.map(named),
            udp: self.udp.map(named),
            pins: self.pins,
            gateways: self.gateways,
        }
    }

    /// Where clients connect if there is but one place.
    pub fn endpoint(&self) -> anyhow::Result<Endpoint> {
        endpoint(
            self.tcp.as_deref(),
            self.ws.as_deref(),
            self.udp.as_deref(),
            self.pins.as_deref(),
        )
    }

    /// Where a client connects: the gateways in an order of its own, or the one
    /// place there is.
    pub fn endpoints(&self) -> anyhow::Result<Vec<Endpoint>> {
        if self.gateways.is_empty() {
            return Ok(vec![self.endpoint()?]);
        }
        let gateways = self.gateways.iter();
        // The gateways that clients choose among share their keys.
        let pins = self.pins.as_deref();
        let mut all: Vec<_> = gateways
            .map(|it| endpoint(it.tcp.as_deref(), it.ws.as_deref(), it.udp.as_deref(), pins))
            .collect::<anyhow::Result<_>>()?;
        all.shuffle(&mut rand::rng());
        Ok(all)
    }
}

/// Where a name leads, such as that of a balancer: the SDK takes addresses.
async fn resolved(place: &str) -> anyhow::Result<String> {
    if place.parse::<SocketAddr>().is_ok() {
        return Ok(place.to_owned());
    }
    let found = tokio::net::lookup_host(place)
        .await
        .with_context(|| format!("cannot resolve {place}, where clients are sent"))?;
    let found: Vec<SocketAddr> = found.collect();
    let of_ipv4 = found.iter().find(|address| address.is_ipv4());
    let address = of_ipv4.or(found.first());
    Ok(address
        .with_context(|| format!("{place} has no address"))?
        .to_string())
}

fn endpoint(
    tcp: Option<&str>,
    ws: Option<&str>,
    udp: Option<&str>,
    pins: Option<&str>,
) -> anyhow::Result<Endpoint> {
    Ok(Endpoint {
        tcp: tcp.map(str::parse).transpose().context("tcp address")?,
        ws: ws.map(|ws| format!("ws://{ws}/")),
        udp: udp.map(str::parse).transpose().context("udp address")?,
        pins: pins.map(str::parse).transpose().context("pins")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_looked_up_and_an_address_is_not() {
        let found = resolved("localhost:8900").await.unwrap();
        let address: SocketAddr = found.parse().unwrap();
        assert!(address.ip().is_loopback() && address.port() == 8900);
        assert_eq!(resolved("10.0.0.7:1").await.unwrap(), "10.0.0.7:1");
        let error = resolved("localhost").await.unwrap_err();
        assert!(error.to_string().contains("localhost"), "{error}");
    }

    #[test]
    fn a_server_on_all_addresses_is_where_it_was_found() {
        let listening = |tcp: &str| Addresses {
            http: "127.0.0.1:1".to_owned(),
            admin: None,
            tcp: Some(tcp.to_owned()),
            ws: None,
            udp: None,
            pins: None,
            gateways: Vec::new(),
        };
        let ip = IpAddr::from([10, 0, 0, 9]);
        let seen = |tcp| listening(tcp).seen_from(ip, "chat.example:1").tcp;
        assert_eq!(seen("0.0.0.0:8900").as_deref(), Some("10.0.0.9:8900"));
        assert_eq!(seen("[::]:8900").as_deref(), Some("10.0.0.9:8900"));
        assert_eq!(seen("10.0.0.7:8900").as_deref(), Some("10.0.0.7:8900"));
    }
}
