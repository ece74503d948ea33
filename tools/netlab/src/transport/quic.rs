//! QUIC, by quinn with its own settings: one bidirectional stream, which the client opens.

use crate::session::Session;
use crate::transport::Invitation;
use crate::transport::frames::{Frames, enter};
use anyhow::{Context, Result};
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use quinn::{ClientConfig, Endpoint, RecvStream, SendStream, ServerConfig};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

const NAME: &str = "netlab";

pub(crate) async fn serve(
    listen: SocketAddr,
    invite: impl FnOnce(Invitation) -> Result<()>,
    session: &mut Session,
) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::with_single_cert(vec![certificate.clone()], key.into())?;
    let endpoint = Endpoint::server(config, listen)?;
    let (address, key) = (endpoint.local_addr()?, hex(&certificate));
    invite(Invitation { address, key })?;
    let incoming = endpoint.accept().await.context("the endpoint is closed")?;
    let connection = incoming.await?;
    let (send, receive) = connection.accept_bi().await?;
    carry(send, receive, session).await
}

pub(crate) async fn connect(to: &Invitation, session: &mut Session) -> Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(bytes(&to.key)?))?;
    let mut endpoint = Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into())?;
    endpoint.set_default_client_config(ClientConfig::with_root_certificates(Arc::new(roots))?);
    let connection = endpoint.connect(to.address, NAME)?.await?;
    let (send, receive) = connection.open_bi().await?;
    carry(send, receive, session).await
}

async fn carry(mut send: SendStream, mut receive: RecvStream, session: &mut Session) -> Result<()> {
    let (mut frames, mut frame) = (Frames::default(), Vec::new());
    let mut scratch = vec![0; 64 * 1024];
    loop {
        while let Some(message) = session.next_message() {
            enter(&message, &mut frame);
        }
        if !frame.is_empty() {
            // Goes into quinn's buffer, which is far larger than what is ever under way here.
            if send.write_all(&frame).await.is_err() {
                break;
            }
            frame.clear();
        }
        tokio::select! {
            going = session.wake() => if !going {
                return Ok(());
            },
            read = receive.read(&mut scratch) => match read {
                Ok(Some(read)) => {
                    frames.receive(&scratch[..read], |message| session.received(message));
                }
                Ok(None) | Err(_) => break,
            },
        }
    }
    session.rest().await;
    Ok(())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn bytes(hex: &str) -> Result<Vec<u8>> {
    let pairs = (0..hex.len()).step_by(2);
    let byte = |at| hex.get(at..at + 2).map(|pair| u8::from_str_radix(pair, 16));
    pairs
        .map(|at| Ok(byte(at).context("half a byte")??))
        .collect()
}
