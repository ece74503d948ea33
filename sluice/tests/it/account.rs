//! A registered user, and a device of theirs.

use sluice_client::Entry;
use sluice_client::{Client, DeviceId, Endpoint, Event, EventStream, HttpApi, LocalState, UserId};

#[derive(Clone)]
pub(crate) struct Account {
    pub(crate) user: UserId,
    pub(crate) token: String,
}

impl Account {
    /// Registers and logs in.
    pub(crate) async fn register(api: &HttpApi, name: &str) -> Self {
        let user = UserId::parse(name).unwrap();
        api.register(&user, "a long password", None).await.unwrap();
        let token = api.login(&user, "a long password").await.unwrap().token;
        Self { user, token }
    }

    /// Connects a device with what it remembers.
    pub(crate) fn device(
        &self,
        device: &str,
        endpoint: &Endpoint,
        state: LocalState,
    ) -> (Client, EventStream) {
        self.start(device, vec![endpoint.clone()], state)
    }

    /// Connects a device that remembers nothing to the first of these, and to
    /// the others when it goes away.
    pub(crate) fn device_among(
        &self,
        device: &str,
        endpoints: Vec<Endpoint>,
    ) -> (Client, EventStream) {
        self.start(device, endpoints, LocalState::memory())
    }

    fn start(
        &self,
        device: &str,
        endpoints: Vec<Endpoint>,
        state: LocalState,
    ) -> (Client, EventStream) {
        Client::builder(self.user.clone(), DeviceId::parse(device).unwrap())
            .servers(endpoints)
            .token(self.token.as_str())
            .state(state)
            .start()
            .unwrap()
    }
}

/// Takes entries until caught up (or stopped by its caller).
pub(crate) async fn take(events: &mut EventStream, seen: &mut Vec<Entry>, until_caught_up: bool) {
    while let Some(event) = events.next().await {
        match event {
            Event::Entry { entry, .. } => seen.push(entry),
            Event::CaughtUp if until_caught_up => return,
            _ => {}
        }
    }
}
