//! Plain TCP, by the kernel.

use crate::session::Session;
use crate::transport::Invitation;
use crate::transport::frames::{Frames, enter};
use anyhow::{Context, Result};
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};

pub(crate) async fn serve(
    listen: SocketAddr,
    invite: impl FnOnce(Invitation) -> Result<()>,
    session: &mut Session,
) -> Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let (address, key) = (listener.local_addr()?, String::new());
    invite(Invitation { address, key })?;
    let (stream, _) = listener.accept().await?;
    carry(stream, session).await
}

pub(crate) async fn connect(to: &Invitation, session: &mut Session) -> Result<()> {
    let stream = TcpStream::connect(to.address).await;
    carry(stream.context("cannot connect")?, session).await
}

async fn carry(stream: TcpStream, session: &mut Session) -> Result<()> {
    stream.set_nodelay(true)?;
    let (mut frames, mut unwritten) = (Frames::default(), Vec::new());
    let mut scratch = vec![0; 64 * 1024];
    loop {
        while let Some(message) = session.next_message() {
            enter(&message, &mut unwritten);
        }
        if !unwritten.is_empty() {
            match stream.try_write(&unwritten) {
                Ok(written) => {
                    unwritten.drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        tokio::select! {
            going = session.wake() => if !going {
                return Ok(());
            },
            ready = stream.readable() => {
                ready?;
                match stream.try_read(&mut scratch) {
                    Ok(read) if read > 0 => {
                        frames.receive(&scratch[..read], |message| session.received(message));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(_) | Err(_) => break,
                }
            }
            ready = stream.writable(), if !unwritten.is_empty() => ready?,
        }
    }
    session.rest().await;
    Ok(())
}
