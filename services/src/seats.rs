//! How much of a kind runs at once, of one user and of all: whoever asks faster
//! than answers come waits outside, and nobody else with them.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use sluice_protocol::UserId;

/// Seats for one kind of call. The table has at most as many users as there are
/// seats in all.
#[derive(Debug)]
pub(crate) struct Seats {
    taken: Mutex<Taken>,
    per_user_max: usize,
    max: usize,
}

#[derive(Debug, Default)]
struct Taken {
    by_user: HashMap<UserId, usize>,
    all: usize,
}

/// Why there is no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSeat {
    /// The user has this many, all that one may have.
    OfUser(usize),
    /// All are taken.
    OfAll,
}

/// Leave to run one call; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    user: UserId,
}

// === impl Seats ===

impl Seats {
    pub(crate) fn new(per_user_max: usize, max: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: Mutex::default(),
            per_user_max: per_user_max.max(1),
            max: max.max(1),
        })
    }

    /// # Errors
    /// [`NoSeat`].
    pub(crate) fn take(self: &Arc<Self>, user: &UserId) -> Result<Seat, NoSeat> {
        let mut taken = self.taken.lock();
        let of_user = taken.by_user.get(user).copied().unwrap_or(0);
        if of_user >= self.per_user_max {
            return Err(NoSeat::OfUser(of_user));
        }
        if taken.all >= self.max {
            return Err(NoSeat::OfAll);
        }
        taken.by_user.insert(user.clone(), of_user + 1);
        taken.all += 1;
        Ok(Seat {
            seats: Arc::clone(self),
            user: user.clone(),
        })
    }
}

// === impl Seat ===

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        taken.all -= 1;
        match taken.by_user.get_mut(&self.user) {
            Some(of_user) if *of_user > 1 => *of_user -= 1,
            _ => {
                taken.by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn refused(seats: &Arc<Seats>, name: &str) -> NoSeat {
        seats.take(&user(name)).unwrap_err()
    }

    #[test]
    fn seats_are_few_for_one_and_bounded_for_all() {
        let seats = Seats::new(2, 3);
        let first = seats.take(&user("ann")).unwrap();
        let second = seats.take(&user("ann")).unwrap();
        assert_eq!(refused(&seats, "ann"), NoSeat::OfUser(2));
        let third = seats.take(&user("ben")).unwrap();
        assert_eq!(refused(&seats, "cat"), NoSeat::OfAll);
        drop(first);
        let fourth = seats.take(&user("cat")).unwrap();
        drop((second, third, fourth));
        assert!(seats.taken.lock().by_user.is_empty());
        assert_eq!(seats.taken.lock().all, 0);
    }
}
