//! The client behind the handle, in safe Rust.

use std::str;

use ::sluice_client::{
    CallError, ContentType, ConversationId, DatagramClient, DatagramConfig, DatagramSettings,
    DeviceId, Platform, SendError, Seq, ServerPins, SessionConfig, Target, UserId,
};

use crate::{
    event::Told,
    types::{
        SLUICE_DATAGRAM_MAX_BYTES, SLUICE_NEVER, SLUICE_RECEIVE_MAX_BYTES, sluice_event, sluice_id,
        sluice_status as Status,
    },
};

/// A client: one user on one device. For one thread at a time.
#[allow(non_camel_case_types, reason = "this is the name in C")]
#[derive(Debug)]
pub struct sluice_client {
    inner: DatagramClient,
    /// The datagram that came or goes.
    datagram: Vec<u8>,
    /// What the last event pointed to.
    told: Told,
    /// It met a panic: what it holds may be half changed.
    pub(crate) is_broken: bool,
}

/// `sluice_config` with its pointers followed.
#[derive(Debug)]
pub(crate) struct Settings<'a> {
    pub(crate) user: &'a [u8],
    pub(crate) device: &'a [u8],
    pub(crate) token: &'a [u8],
    pub(crate) pins: &'a [u8],
    pub(crate) state: &'a [u8],
    pub(crate) random: [u8; 32],
    pub(crate) unix_ms: u64,
    pub(crate) platform: u32,
    pub(crate) datagram_max_bytes: u32,
}

/// `sluice_to` with its pointers followed.
#[derive(Debug)]
pub(crate) struct To<'a> {
    pub(crate) user: &'a [u8],
    pub(crate) conversation: &'a [u8],
}

// === impl sluice_client ===

impl sluice_client {
    pub(crate) fn connect(settings: Settings<'_>, now_us: u64) -> Result<Self, Status> {
        if settings
            .random
            .iter()
            .all(|byte| *byte == settings.random[0])
        {
            return Err(Status::BAD_RANDOM);
        }
        if settings.token.is_empty() && settings.state.is_empty() {
            return Err(Status::NO_TOKEN);
        }
        let platform = i32::try_from(settings.platform).unwrap_or(-1);
        let session = SessionConfig {
            platform: Platform::try_from(platform).map_err(|_| Status::BAD_ARGUMENT)?,
            agent: concat!("sluice-c/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..SessionConfig::default()
        };
        let mut datagram = DatagramConfig::default();
        match u16::try_from(settings.datagram_max_bytes) {
            Ok(0) => {}
            Ok(bytes @ 1200..=1452) => datagram.datagram_max_bytes = bytes,
            _ => return Err(Status::BAD_ARGUMENT),
        }
        let pins: ServerPins = text(settings.pins)?.parse().map_err(|_| Status::BAD_PINS)?;
        let settings_inner = DatagramSettings {
            user: UserId::parse(text(settings.user)?).map_err(|_| Status::BAD_NAME)?,
            device: DeviceId::parse(text(settings.device)?).map_err(|_| Status::BAD_NAME)?,
            token: text(settings.token)?.to_owned(),
            pins,
            unix_ms: settings.unix_ms,
            session,
            datagram,
        };
        let kept = (!settings.state.is_empty()).then_some(settings.state);
        let inner = DatagramClient::new(now_us, settings_inner, kept, settings.random)
            .map_err(|_| Status::BAD_STATE)?;
        Ok(Self {
            inner,
            datagram: Vec::with_capacity(SLUICE_RECEIVE_MAX_BYTES),
            told: Told::default(),
            is_broken: false,
        })
    }

    pub(crate) fn receive(&mut self, now_us: u64, datagram: &[u8]) {
        self.datagram.clear();
        self.datagram.extend_from_slice(datagram);
        self.inner.receive(now_us, &mut self.datagram);
    }

    /// The next datagram, empty if none is due.
    pub(crate) fn transmit(&mut self, now_us: u64, cap: usize) -> Result<&[u8], Status> {
        if cap < SLUICE_DATAGRAM_MAX_BYTES {
            return Err(Status::SMALL_BUFFER);
        }
        self.datagram.clear();
        self.inner.transmit(now_us, &mut self.datagram);
        match self.datagram.len() {
            len if len <= cap => Ok(&self.datagram),
            _ => Err(Status::INTERNAL),
        }
    }

    pub(crate) fn timeout(&self) -> u64 {
        self.inner.timeout().unwrap_or(SLUICE_NEVER)
    }

    pub(crate) fn on_timeout(&mut self, now_us: u64) {
        self.inner.on_timeout(now_us);
    }

    pub(crate) fn send(
        &mut self,
        now_us: u64,
        to: To<'_>,
        content_type: u32,
        body: &[u8],
    ) -> Result<sluice_id, Status> {
        let (to, content_type) = (target(to)?, content_type_of(content_type)?);
        let id = self
            .inner
            .send(now_us, to, content_type, body.to_vec().into())?;
        Ok(sluice_id {
            bytes: *id.as_bytes(),
        })
    }

    pub(crate) fn send_ephemeral(
        &mut self,
        now_us: u64,
        to: To<'_>,
        content_type: u32,
        body: &[u8],
    ) -> Result<(), Status> {
        let (to, content_type) = (target(to)?, content_type_of(content_type)?);
        let body = body.to_vec().into();
        Ok(self.inner.send_ephemeral(now_us, to, content_type, body)?)
    }

    pub(crate) fn typing(&mut self, now_us: u64, to: To<'_>) -> Result<(), Status> {
        Ok(self.inner.typing(now_us, target(to)?)?)
    }

    pub(crate) fn read(
        &mut self,
        now_us: u64,
        conversation: &[u8],
        seq: u64,
    ) -> Result<(), Status> {
        let conversation =
            ConversationId::parse(text(conversation)?).map_err(|_| Status::BAD_NAME)?;
        self.inner.read(now_us, conversation, Seq(seq));
        Ok(())
    }

    pub(crate) fn request(
        &mut self,
        now_us: u64,
        service: &[u8],
        key: &[u8],
        payload: &[u8],
        timeout_ms: u32,
    ) -> Result<u64, Status> {
        let service = text(service)?;
        if service.is_empty() {
            return Err(Status::BAD_NAME);
        }
        let (key, payload) = (key.to_vec().into(), payload.to_vec().into());
        Ok(self
            .inner
            .request(now_us, service, key, payload, timeout_ms)?)
    }

    pub(crate) fn renew_token(&mut self, now_us: u64, token: &[u8]) -> Result<(), Status> {
        if token.is_empty() {
            return Err(Status::NO_TOKEN);
        }
        self.inner.renew_token(now_us, text(token)?.to_owned());
        Ok(())
    }

    pub(crate) fn next_event(&mut self, now_us: u64) -> Option<sluice_event> {
        self.told = self.inner.poll_event(now_us)?.into();
        Some(self.told.view())
    }

    pub(crate) fn rebind(&mut self, now_us: u64) {
        self.inner.rebind(now_us);
    }

    pub(crate) fn silence(&self, now_us: u64) -> u64 {
        self.inner.silence(now_us)
    }

    pub(crate) fn close(&mut self, now_us: u64, logout: bool) {
        self.inner.close(now_us, logout);
    }

    pub(crate) fn state(&self) -> Vec<u8> {
        self.inner.state()
    }

    pub(crate) fn revision(&self) -> u64 {
        self.inner.revision()
    }
}

fn text(bytes: &[u8]) -> Result<&str, Status> {
    str::from_utf8(bytes).map_err(|_| Status::BAD_TEXT)
}

fn target(to: To<'_>) -> Result<Target, Status> {
    match (to.user, to.conversation) {
        ([], []) => Err(Status::BAD_ARGUMENT),
        (user, []) => match UserId::parse(text(user)?) {
            Ok(user) => Ok(Target::User(user)),
            Err(_) => Err(Status::BAD_NAME),
        },
        ([], conversation) => match ConversationId::parse(text(conversation)?) {
            Ok(conversation) => Ok(Target::Conversation(conversation)),
            Err(_) => Err(Status::BAD_NAME),
        },
        _ => Err(Status::BAD_ARGUMENT),
    }
}

fn content_type_of(number: u32) -> Result<ContentType, Status> {
    let number = i32::try_from(number).unwrap_or(-1);
    ContentType::try_from(number).map_err(|_| Status::BAD_ARGUMENT)
}

// === impl Status ===

impl From<SendError> for Status {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full(_) => Self::FULL,
            SendError::TooLarge { .. } => Self::TOO_LARGE,
            SendError::ToOneself => Self::TO_ONESELF,
            SendError::Stalled(_) => Self::STALLED,
            SendError::Ended(_) => Self::ENDED,
            // Said by the server or a file, which no call here waits for.
            SendError::Refused(_) | SendError::State(_) => Self::INTERNAL,
        }
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        match error {
            CallError::TooMany => Self::TOO_MANY,
            CallError::TooLarge(_) => Self::TOO_LARGE,
            CallError::ConnectionLost => Self::NOT_CONNECTED,
            CallError::Ended(_) => Self::ENDED,
            // Said later, by an event.
            CallError::Refused(_) | CallError::Timeout | CallError::BadAnswer => Self::INTERNAL,
        }
    }
}
