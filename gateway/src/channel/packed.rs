//! A channel that sleeps: what must be remembered while nothing is under way.

use sluice_codec::{
    Framing,
    packed::{
        put_address, put_bytes, put_difference, put_number, take_address, take_bytes,
        take_difference, take_narrow, take_number,
    },
};
use sluice_protocol::{DeviceId, UserId};
use sluice_timer::TimerHandle;

use super::{Channel, Flags, Identity, Phase};
use crate::{
    context::UNANSWERED_FORGIVEN_MS, rate::RateMeter, rtt::RttEstimator, slab::ChannelKey,
};

// === impl Channel ===

impl Channel {
    /// Appends all that the channel is but its key and framing, and answers true;
    /// appends nothing and answers false if something is under way. The timer goes
    /// on: it wakes the channel in time.
    pub(crate) fn pack(&self, now_ms: u64, out: &mut Vec<u8>) -> bool {
        // Taken apart, so that nothing that is added to a channel is forgotten here.
        let Self {
            key: _,
            peer,
            framing: _,
            phase,
            flags,
            identity,
            accepted_ms,
            last_inbound_ms,
            frame_began_ms,
            // Of phases that don't sleep.
            phase_since_ms: _,
            output_full_since_ms: _,
            timer,
            timer_due_ms,
            output,
            appended_bytes,
            written_bytes,
            read_bytes,
            pushes,
            next_push,
            rtt,
            pushes_dropped,
            requests,
            rate,
            strikes,
            unanswered,
            last_handed_up_ms,
        } = self;
        let quiet_ms = now_ms.saturating_sub(*last_handed_up_ms);
        let is_quiet = *phase == Phase::Open
            && flags.is_quiet()
            && *frame_began_ms == 0
            && output.is_none()
            && pushes.is_none()
            && *pushes_dropped == 0
            && requests.is_none()
            && (*unanswered == 0 || quiet_ms > UNANSWERED_FORGIVEN_MS);
        let (true, Some(identity), Some(timer)) = (is_quiet, identity, timer) else {
            return false;
        };
        put_number(out, *accepted_ms);
        put_number(out, *last_inbound_ms);
        put_number(out, *read_bytes);
        put_number(out, *appended_bytes);
        put_difference(out, *written_bytes, *appended_bytes);
        put_number(out, timer.to_bits() & u64::from(u32::MAX));
        put_number(out, timer.to_bits() >> 32);
        put_difference(out, *timer_due_ms, *last_inbound_ms);
        put_number(out, *next_push);
        rtt.pack(out);
        put_number(out, rate.pack(now_ms));
        put_number(out, (*strikes).into());
        put_address(out, *peer);
        identity.pack(out);
        true
    }

    /// Takes what [`Channel::pack`] appended off the front, but for the identity,
    /// which comes next: [`Identity::unpack`].
    pub(crate) fn unpack_unnamed(
        key: ChannelKey,
        framing: Framing,
        input: &mut &[u8],
    ) -> Option<Self> {
        let (accepted_ms, last_inbound_ms) = (take_number(input)?, take_number(input)?);
        let (read_bytes, appended_bytes) = (take_number(input)?, take_number(input)?);
        let written_bytes = take_difference(input, appended_bytes)?;
        let timer_bits = take_number(input)? | take_number(input)? << 32;
        Some(Self {
            key,
            framing,
            phase: Phase::Open,
            flags: Flags {
                established: true,
                ..Flags::default()
            },
            identity: None,
            accepted_ms,
            last_inbound_ms,
            frame_began_ms: 0,
            phase_since_ms: accepted_ms,
            output_full_since_ms: 0,
            timer: TimerHandle::from_bits(timer_bits),
            timer_due_ms: take_difference(input, last_inbound_ms)?,
            output: None,
            appended_bytes,
            written_bytes,
            read_bytes,
            pushes: None,
            next_push: take_number(input)?,
            rtt: RttEstimator::unpack(input)?,
            pushes_dropped: 0,
            requests: None,
            rate: RateMeter::unpack(take_number(input)?),
            strikes: take_narrow(input)?,
            unanswered: 0,
            last_handed_up_ms: 0,
            peer: take_address(input)?,
        })
    }

    /// Takes the whole.
    pub(crate) fn unpack(key: ChannelKey, framing: Framing, input: &mut &[u8]) -> Option<Self> {
        let mut channel = Self::unpack_unnamed(key, framing, input)?;
        channel.identity = Some(Box::new(Identity::unpack(input)?));
        Some(channel)
    }
}

// === impl Identity ===

impl Identity {
    fn pack(&self, out: &mut Vec<u8>) {
        let Self {
            user,
            device,
            platform,
            refresh_until_s,
            connect_id,
            token_epoch,
            login,
            expires_unix_ms,
        } = self;
        put_bytes(out, user.as_str().as_bytes());
        put_bytes(out, device.as_str().as_bytes());
        // Folded, since it may be negative.
        put_difference(out, i64::from(*platform) as u64, 0);
        put_number(out, (*refresh_until_s).into());
        put_number(out, *connect_id);
        out.push(u8::from(token_epoch.is_some()));
        put_number(out, token_epoch.unwrap_or(0));
        put_number(out, *login);
        put_number(out, *expires_unix_ms);
    }

    fn unpack(input: &mut &[u8]) -> Option<Self> {
        let user = UserId::parse(std::str::from_utf8(take_bytes(input)?).ok()?).ok()?;
        let device = DeviceId::parse(std::str::from_utf8(take_bytes(input)?).ok()?).ok()?;
        let platform = i32::try_from(take_difference(input, 0)? as i64).ok()?;
        let refresh_until_s = take_narrow(input)?;
        let connect_id = take_number(input)?;
        let has_epoch = take_number(input)? != 0;
        let token_epoch = take_number(input)?;
        Some(Self {
            user,
            device,
            platform,
            refresh_until_s,
            connect_id,
            token_epoch: has_epoch.then_some(token_epoch),
            login: take_number(input)?,
            expires_unix_ms: take_number(input)?,
        })
    }
}

// === impl Flags ===

impl Flags {
    /// Whether all is as it is between two packets.
    fn is_quiet(self) -> bool {
        let Self {
            readable,
            read_closed,
            write_blocked,
            on_ready_list,
            on_dirty_list,
            paused,
            established,
            shut,
            gone,
        } = self;
        let is_busy = readable
            || read_closed
            || write_blocked
            || on_ready_list
            || on_dirty_list
            || paused
            || shut
            || gone;
        established && !is_busy
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;
    use sluice_timer::Wheel;

    use super::*;

    const KEY: ChannelKey = ChannelKey {
        slot: 7,
        generation: 9,
    };

    /// Open, and in every field something else than at its beginning.
    fn open(numbers: &[u64; 12], names: (&str, &str), timers: usize) -> Channel {
        let peer = SocketAddr::from(([192, 0, 2, numbers[0] as u8], numbers[1] as u16));
        let mut channel = Channel::new(KEY, peer, Framing::Tcp, numbers[2]);
        let (user, device) = (UserId::parse(names.0), DeviceId::parse(names.1));
        let (platform, connect_id) = (numbers[3] as i32, numbers[4]);
        let epoch = (!numbers[5].is_multiple_of(3)).then_some(numbers[5]);
        let mut identity = Identity::new(
            user.unwrap(),
            device.unwrap(),
            platform,
            connect_id,
            epoch,
            numbers[6],
        );
        identity.login = numbers[7];
        identity.refresh_until_s = numbers[8] as u32;
        channel.identity = Some(Box::new(identity));
        channel.phase = Phase::Open;
        channel.last_inbound_ms = numbers[9];
        channel.appended_bytes = numbers[10];
        channel.written_bytes = numbers[11];
        channel.read_bytes = numbers[1];
        channel.next_push = numbers[0];
        channel.strikes = numbers[3] as u32;
        channel.rtt.sample(numbers[4] % 10_000);
        channel.rate = RateMeter::unpack(numbers[5]);
        let mut wheel = Wheel::new(8, timers + 1, 0);
        for _ in 0..=timers {
            channel.timer = wheel.schedule(numbers[8], 0_u64).ok();
        }
        channel.timer_due_ms = numbers[8];
        channel
    }

    fn told(channel: &Channel) -> String {
        format!(
            "{:?}",
            Channel {
                // Of no meaning while a channel is open and its output empty.
                phase_since_ms: 0,
                ..Channel::unpack(KEY, channel.framing, &mut packed(channel).as_slice()).unwrap()
            }
        )
    }

    fn packed(channel: &Channel) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(channel.pack(0, &mut out));
        out
    }

    proptest! {
        #[test]
        fn a_channel_comes_back_as_it_was(
            numbers: [u64; 12], shift in 0..64_u32, timers in 0..300_usize,
            user in "[a-zä]{1,30}", device in "[0-9]{1,64}",
        ) {
            let numbers = numbers.map(|number| number >> shift);
            let mut channel = open(&numbers, (&user, &device), timers);
            let told = told(&channel);
            channel.phase_since_ms = 0;
            prop_assert_eq!(told, format!("{channel:?}"));
            let out = packed(&channel);
            for end in 0..out.len() {
                let cut = Channel::unpack(KEY, Framing::Tcp, &mut &out[..end]);
                prop_assert!(cut.is_none());
            }
        }
    }

    #[test]
    fn who_has_something_under_way_stays_awake() {
        let busy: [fn(&mut Channel); 9] = [
            |channel| channel.phase = Phase::Opening,
            |channel| channel.identity = None,
            |channel| channel.timer = None,
            |channel| channel.flags.on_dirty_list = true,
            |channel| channel.flags.paused = true,
            |channel| channel.output = Some(Box::default()),
            |channel| channel.requests = Some(Box::default()),
            |channel| channel.pushes_dropped = 1,
            |channel| channel.unanswered = 1,
        ];
        for make_busy in busy {
            let mut channel = open(&[40; 12], ("alice", "phone"), 1);
            packed(&channel);
            make_busy(&mut channel);
            let mut out = vec![1];
            assert!(!channel.pack(0, &mut out));
            assert_eq!(out, [1]);
        }
    }

    #[test]
    fn an_idle_channel_is_small() {
        let bytes = packed(&open(
            &[100_000_000; 12],
            ("a-user-of-25-bytes-in-all", "phone"),
            1,
        ));
        assert!(bytes.len() <= 110, "{}", bytes.len());
    }
}
